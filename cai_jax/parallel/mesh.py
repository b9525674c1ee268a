"""The device mesh, and the one table from logical axes to mesh axes.

Parameters declare logical axes where they are created (``axes=("embed", "heads")``). This module
alone decides which mesh axis shards each of them.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")

# fsdp shards every weight along its model dimension, tensor along heads, feed-forward width or
# vocabulary (Megatron: one all-reduce after attention, one after the MLP). Batches are sharded
# over data and fsdp. Layers are scanned, so their axis is not sharded.
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

    Axes are ``Auto``: the compiler propagates shardings from parameters and batches, and we
    constrain activations only. Several TPU slices split data, so that only gradients pass over the
    slow network between them.

    Args:
      data: size of the axis.
      fsdp: size of the axis.
      tensor: size of the axis. At most one size may be -1: it takes the devices that are left.
      devices: default to all devices.

    Raises:
      ValueError: the sizes do not multiply to the number of devices, or slices do not divide data.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = _axis_sizes((data, fsdp, tensor), len(devices))
    slices = _slices(devices)
    if sizes[0] % slices:
        raise ValueError(
            f"mesh axis data has size {sizes[0]}, over {slices} slices; make it a multiple of "
            f"{slices}, so that only gradients pass from slice to slice"
        )
    slice_sizes = (sizes[0] // slices, *sizes[1:])
    device_array = (
        mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
        if slices == 1
        else mesh_utils.create_hybrid_device_mesh(
            slice_sizes, (slices, 1, 1), devices, allow_split_physical_axes=True
        )
    )
    return Mesh(device_array, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def decoding_mesh(mesh: Mesh, tensor: int) -> Mesh:
    """The mesh (data, 1, tensor) of the same devices in the same order, for sampling.

    A decoding step reads every weight for one token per row. Sharded over fsdp, weights would be
    gathered at every step; sharded over tensor, only activations are communicated.

    Raises:
      ValueError: ``tensor`` does not divide the devices of a slice.
    """
    per_slice = mesh.size // _slices(mesh.devices.flat)
    if per_slice % tensor:
        raise ValueError(
            f"mesh axis tensor of sampling has size {tensor}, which does not divide the "
            f"{per_slice} devices of a slice; choose a divisor"
        )
    devices = mesh.devices.reshape(-1, 1, tensor)
    return Mesh(devices, MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def _slices(devices: Iterable[jax.Device]) -> int:
    """Number of TPU slices; 1 on other platforms."""
    return len({getattr(device, "slice_index", None) for device in devices})


def _axis_sizes(sizes: Sequence[int], devices: int) -> tuple[int, ...]:
    """The sizes with -1 resolved."""
    named = dict(zip(MESH_AXES, sizes, strict=True))
    if list(sizes).count(-1) > 1:
        raise ValueError(f"mesh {named}: only one axis may be -1; set the others")
    known = int(np.prod([size for size in sizes if size != -1]))
    resolved = tuple(max(devices // known, 1) if size == -1 else size for size in sizes)
    if int(np.prod(resolved)) != devices:
        raise ValueError(
            f"mesh {named} needs {int(np.prod(resolved))} devices, but there are {devices}; "
            "change a size, or set one axis to -1"
        )
    return resolved


def batch_multiple(mesh: Mesh | AbstractMesh) -> int:
    """Number of shards of a batch; batch sizes are multiples of it."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def partition_spec(
    axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """Partition spec of an array with these logical axes.

    A dimension that its mesh axes do not divide is not sharded (9 heads over 2 devices). A mesh
    axis shards one dimension of an array at most, the first whose rule names it.

    Args:
      axes: logical axis of each dimension, None for one that is never sharded.
      shape: sizes of the dimensions.
      mesh: whose axis sizes count.
    """
    spec: list[str | tuple[str, ...] | None] = []
    used: set[str] = set()
    for axis, size in zip(axes, shape, strict=True):
        rule = LOGICAL_RULES[axis] if axis is not None else None
        names = (rule,) if isinstance(rule, str) else (rule or ())
        shards = int(np.prod([mesh.shape[name] for name in names])) if names else 1
        if shards > 1 and size % shards == 0 and not used.intersection(names):
            used.update(names)
            spec.append(rule)
        else:
            spec.append(None)
    return PartitionSpec(*spec)


def param_spec(
    axes: Sequence[str | None], shape: Sequence[int], mesh: Mesh | AbstractMesh
) -> PartitionSpec:
    """Partition spec of a parameter: as ``partition_spec``, and always sharded over fsdp.

    If no dimension takes fsdp by its rule (a bias, a low-rank update), the dimension with the
    largest shards that fsdp divides takes it, so that no device holds a whole parameter. The layer
    axis is never sharded, since it is scanned over.
    """
    spec = list(partition_spec(axes, shape, mesh))
    fsdp = mesh.shape["fsdp"]
    mesh_axes = [((part,) if isinstance(part, str) else part) or () for part in spec]
    if fsdp == 1 or any("fsdp" in names for names in mesh_axes):
        return PartitionSpec(*spec)
    shard_shape = [
        size // int(np.prod([mesh.shape[name] for name in names]))
        for size, names in zip(shape, mesh_axes, strict=True)
    ]
    divisible = [
        i for i, size in enumerate(shard_shape) if axes[i] != "layers" and size % fsdp == 0
    ]
    if divisible:
        largest = max(divisible, key=lambda i: shard_shape[i])
        spec[largest] = (*mesh_axes[largest], "fsdp")
    return PartitionSpec(*spec)


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Constrains the sharding of an activation under ``jax.set_mesh``; else does nothing.

    Args:
      x: the activation.
      axes: logical axis of each dimension.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def gathered(weight: jax.Array, axes: tuple[str | None, ...]) -> jax.Array:
    """A weight as matmuls read it: gathered over fsdp, sharded over tensor only.

    Without the constraint the compiler multiplies with one shard after the other and sums float32
    results as large as the activations: 10 times the memory traffic. Gradients are scattered over
    fsdp again.

    Args:
      weight: the parameter.
      axes: logical axis of each dimension.
    """
    return _constrain_weight(weight, axes, fsdp=False)


def _gathered_fwd(weight: jax.Array, axes: tuple[str | None, ...]) -> tuple[jax.Array, None]:
    return gathered(weight, axes), None


def _gathered_bwd(axes: tuple[str | None, ...], _: None, grad: jax.Array) -> tuple[jax.Array]:
    return (_constrain_weight(grad, axes, fsdp=True),)


gathered.defvjp(_gathered_fwd, _gathered_bwd)


def _constrain_weight(weight: jax.Array, axes: tuple[str | None, ...], fsdp: bool) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.shape.get("fsdp", 1) == 1:
        return weight
    spec = param_spec(axes, weight.shape, mesh) if fsdp else _without_fsdp(axes, weight, mesh)
    return jax.lax.with_sharding_constraint(weight, spec)


def _without_fsdp(
    axes: tuple[str | None, ...], weight: jax.Array, mesh: AbstractMesh
) -> PartitionSpec:
    return partition_spec([None if a == "embed" else a for a in axes], weight.shape, mesh)


def split_rows(tree: Any, parts: int) -> Any:
    """Reshapes arrays [b, ...] to [parts, b / parts, ...] for a scan; ``join_rows`` undoes it.

    Part i takes every ``parts``-th row from i on, so that every device has rows of every part.
    Consecutive rows would leave most devices idle, or have to be communicated.
    """

    def split(x: jax.Array) -> jax.Array:
        x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        return constrain(x, None, "batch", *(None,) * (x.ndim - 2))

    return jax.tree.map(split, tree)


def join_rows(tree: Any) -> Any:
    """Reshapes arrays [parts, b / parts, ...] to [b, ...], in the order before ``split_rows``."""
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(-1, *x.shape[2:]), tree)


def offload_to_host(tree: Any, offload: bool) -> Callable[[], Any]:
    """Moves arrays to the hosts' memory; the returned function copies them back to the devices.

    Args:
      tree: of arrays. The caller drops them, so that they free device memory.
      offload: whether to move them; False returns a function that returns ``tree``.
    """
    if not offload:
        return lambda: tree
    on_device = jax.tree.map(lambda x: x.sharding, tree)
    on_host = jax.tree.map(lambda sharding: sharding.with_memory_kind("pinned_host"), on_device)
    offloaded = jax.device_put(tree, on_host)
    return lambda: jax.device_put(offloaded, on_device)


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
    return _put(x, NamedSharding(mesh, PartitionSpec()))


def rounded_up(size: int, multiple: int) -> int:
    """The least multiple that is not smaller."""
    return -(-size // multiple) * multiple


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Shards a pytree of host arrays over the mesh; the leading axis of each is batch.

    Every host has the whole batch and copies the rows of its own devices.
    """
    return jax.tree.map(lambda x: _put(np.asarray(x), batch_sharding(np.shape(x), mesh)), batch)


def put_like(batch: Any, wanted: Any) -> Any:
    """As ``put_batch``, with the shardings of a tree of abstract arrays."""
    return jax.tree.map(lambda x, like: _put(np.asarray(x), like.sharding), batch, wanted)


def _put(x: np.ndarray, sharding: jax.sharding.Sharding) -> jax.Array:
    return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)
