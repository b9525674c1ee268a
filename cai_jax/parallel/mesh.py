"""The device mesh and the one table from logical axes to mesh axes.

Parameters declare logical axes where they are created (``axes=("embed", "heads")``); this module
alone decides which mesh axis each of them is split over.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

# fsdp splits every weight along its model dimension, tensor splits it along heads, feed-forward
# or vocabulary (Megatron layout: one all-reduce after attention, one after the MLP). Batches are
# split over data and fsdp. Layers are scanned, so their axis stays whole on every device.
LOGICAL_RULES: dict[str, str | tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "layers": None,
    "embed": "fsdp",
    "vocab": "tensor",
    "heads": "tensor",
    "kv_heads": "tensor",
    "mlp": "tensor",
    "lora_rank": None,
}


def make_mesh(
    data: int = 1, fsdp: int = -1, tensor: int = 1, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Builds the (data, fsdp, tensor) mesh over all devices.

    At most one size may be -1: it takes the devices that the others leave. Axes are ``Auto``: the
    compiler propagates shardings from parameters and batches, we only constrain activations. Over
    several TPU slices, data is split across them: gradients alone pass the slow network.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or slices do not divide data.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _whole_sizes((data, fsdp, tensor), len(devices), "config.mesh")
    slices = _slices(devices)
    if sizes[0] % slices:
        raise ValueError(
            f"config.mesh.data: {sizes[0]} ways over {slices} slices; make it a multiple of "
            f"{slices}, for only gradients should pass from slice to slice"
        )
    inside = (sizes[0] // slices, *sizes[1:])
    placed = (
        mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        if slices == 1
        else mesh_utils.create_hybrid_device_mesh(
            inside, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    )
    return Mesh(placed, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def decoding_mesh(mesh: Mesh, tensor: int) -> Mesh:
    """The same devices in the same order, ``tensor`` of them to a copy of the model.

    A decoding step reads every weight for a token a row. Split over fsdp, weights would travel
    in every step; split over tensor, only activations do.

    Raises:
      ValueError: the devices of a slice do not divide.
    """
    inside = mesh.size // _slices(mesh.devices.flat)
    if inside % tensor:
        raise ValueError(
            f"config.mesh.decode_tensor: {inside} devices, joined by fast links, are no multiple "
            f"of {tensor}"
        )
    devices = mesh.devices.reshape(-1, 1, tensor)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def _slices(devices: Iterable[jax.Device]) -> int:
    return len({getattr(device, "slice_index", None) for device in devices})


def _whole_sizes(sizes: Sequence[int], devices: int, where: str) -> tuple[int, ...]:
    named = dict(zip(MESH_AXES, sizes, strict=True))
    if list(sizes).count(-1) > 1:
        raise ValueError(f"{where}: {named}: only one axis may be -1")
    known = int(np.prod([size for size in sizes if size != -1]))
    whole = tuple(max(devices // known, 1) if size == -1 else size for size in sizes)
    if int(np.prod(whole)) != devices:
        raise ValueError(
            f"{where}: {named} wants {int(np.prod(whole))} devices, but there are {devices}; "
            "change it, or set one axis to -1"
        )
    return whole


def batch_multiple(mesh: Mesh | AbstractMesh) -> int:
    """Number of devices that a batch is split over; batch sizes are multiples of it."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def partition_spec(axes: Sequence[str | None], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """Mesh placement of an array with these logical axes.

    A dimension that its mesh axes do not divide stays whole (9 heads over 2 devices), and a mesh
    axis is used once an array, by the first dimension that asks for it.

    Args:
      axes: logical axis of each dimension, None for one that is never split.
      shape: sizes of the dimensions.
      mesh: a mesh or abstract mesh; anything with ``shape`` from axis name to size.
    """
    spec: list[Any] = []
    used: set[str] = set()
    for axis, size in zip(axes, shape, strict=True):
        rule = LOGICAL_RULES[axis] if axis is not None else None
        names = (rule,) if isinstance(rule, str) else (rule or ())
        ways = int(np.prod([mesh.shape[name] for name in names])) if names else 1
        if ways > 1 and size % ways == 0 and not used.intersection(names):
            used.update(names)
            spec.append(rule)
        else:
            spec.append(None)
    return PartitionSpec(*spec)


def param_spec(axes: Sequence[str | None], shape: Sequence[int], mesh: Any) -> PartitionSpec:
    """Placement of a parameter: as ``partition_spec``, and over fsdp in any case.

    Where no dimension takes fsdp by its rule (a bias, the narrow side of a low-rank update), the
    largest that can be split further takes it, so that no device holds a whole parameter. The
    layer axis stays whole: it is scanned over.
    """
    spec = list(partition_spec(axes, shape, mesh))
    ways = mesh.shape["fsdp"]
    taken = [((part,) if isinstance(part, str) else part) or () for part in spec]
    if ways == 1 or any("fsdp" in names for names in taken):
        return PartitionSpec(*spec)
    left = [
        s // int(np.prod([mesh.shape[n] for n in names]))
        for s, names in zip(shape, taken, strict=True)
    ]
    can = [i for i, size in enumerate(left) if axes[i] != "layers" and size % ways == 0]
    if can:
        widest = max(can, key=lambda i: left[i])
        spec[widest] = (*taken[widest], "fsdp")
    return PartitionSpec(*spec)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an activation to its logical axes under ``jax.set_mesh``; elsewhere does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(weight: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    """A weight as products read it: whole over fsdp, split over tensor alone.

    Said outright, because the compiler would rather multiply with the pieces one after the other
    and add up float32 results as large as the activations: 10 times the memory traffic. Gradients
    go back to the pieces.
    """
    return _constrain_weight(weight, axes, fsdp=False)


def _gathered_fwd(weight, axes):
    return gathered(weight, axes), None


def _gathered_bwd(axes, _, grad):
    return (_constrain_weight(grad, axes, fsdp=True),)


gathered.defvjp(_gathered_fwd, _gathered_bwd)


def _constrain_weight(weight: jax.Array, axes: tuple[str | None, ...], fsdp: bool) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("fsdp", 1) == 1:
        return weight
    spec = param_spec(axes, weight.shape, mesh) if fsdp else _without_fsdp(axes, weight, mesh)
    return jax.lax.with_sharding_constraint(weight, spec)


def _without_fsdp(axes: tuple[str | None, ...], weight: jax.Array, mesh: Any) -> PartitionSpec:
    return partition_spec([None if a == "embed" else a for a in axes], weight.shape, mesh)


def split_rows(tree: Any, parts: int) -> Any:
    """Arrays [b, ...] as [parts, b / parts, ...], for a scan over parts; ``join_rows`` undoes it.

    Part i takes every ``parts``-th row from i on: every device keeps rows of every part, where
    consecutive rows would leave most of them idle, or travel.
    """

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        return constrain(x, None, "batch", *(None,) * (x.ndim - 2))

    return jax.tree.map(split, tree)


def join_rows(tree: Any) -> Any:
    """Arrays [parts, b / parts, ...] as [b, ...] in the order before ``split_rows``."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)


def offload_to_host(tree: Any, offload: bool) -> Callable[[], Any]:
    """A function that gives the arrays back; until it is called they take no device memory.

    Without ``offload`` it gives them as they are.
    """
    if not offload:
        return lambda: tree
    there = jax.tree.map(lambda x: x.sharding, tree)
    hosts = jax.tree.map(lambda sharding: sharding.with_memory_kind("pinned_host"), there)
    kept = jax.device_put(tree, hosts)
    return lambda: jax.device_put(kept, there)


def batch_sharding(shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """How an array whose leading axis is batch is split; a scalar is on every device."""
    axes = ("batch",) + (None,) * (len(shape) - 1) if shape else ()
    return NamedSharding(mesh, partition_spec(axes, shape, mesh))


def abstract_batch(shape: Sequence[int], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """An abstract array as ``put_batch`` would split it."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=batch_sharding(shape, mesh))


def abstract_replicated(shape: Sequence[int], dtype: Any, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """An abstract array that every device holds whole."""
    return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, PartitionSpec()))


def replicate(x: np.ndarray, mesh: Mesh) -> jax.Array:
    """A host array, whole on every device."""
    sharding = NamedSharding(mesh, PartitionSpec())
    return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)


def rounded_up(size: int, multiple: int) -> int:
    """The least multiple that is not smaller."""
    return -(-size // multiple) * multiple


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Puts a pytree of host arrays, leading axis batch, on the mesh.

    Every host has the whole batch; only the rows of its own devices go onto them.
    """

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        sharding = batch_sharding(x.shape, mesh)
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    return jax.tree.map(put, batch)
