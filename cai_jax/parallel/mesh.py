"""The device mesh and the one table from logical axes to mesh axes.

Parameters declare logical axes where they are created (``axes=("embed", "heads")``); this module
alone decides which mesh axis each of them is split over.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

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


def make_mesh(data: int = 1, fsdp: int = -1, tensor: int = 1) -> Mesh:
    """Builds the (data, fsdp, tensor) mesh over all devices.

    At most one size may be -1: it takes the devices that the others leave. Axes are ``Auto``: the
    compiler propagates shardings from parameters and batches, we only constrain activations.

    Raises:
      ValueError: the sizes do not multiply to the number of devices.
    """
    sizes = [data, fsdp, tensor]
    devices = jax.device_count()
    if sizes.count(-1) > 1:
        raise ValueError(
            f"mesh {dict(zip(MESH_AXES, sizes, strict=True))}: only one axis may be -1"
        )
    if -1 in sizes:
        known = -int(np.prod(sizes))
        sizes[sizes.index(-1)] = max(devices // known, 1)
    if int(np.prod(sizes)) != devices:
        raise ValueError(
            f"mesh {dict(zip(MESH_AXES, sizes, strict=True))} wants {int(np.prod(sizes))} devices, "
            f"but JAX sees {devices}: change config.mesh or set one axis to -1"
        )
    return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * 3)


def batch_multiple(mesh: Mesh) -> int:
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


def constrain(x: jax.Array, *axes: str | None) -> jax.Array:
    """Pins an activation to its logical axes under ``jax.set_mesh``; elsewhere does nothing."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, partition_spec(axes, x.shape, mesh))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Places a pytree of host arrays, leading axis batch, on the mesh.

    Every host has the whole batch; only the rows of its own devices go onto them.
    """

    def put(x: Any) -> jax.Array:
        x = np.asarray(x)
        axes = ("batch",) + (None,) * (x.ndim - 1) if x.ndim else ()
        sharding = NamedSharding(mesh, partition_spec(axes, x.shape, mesh))
        return jax.make_array_from_callback(x.shape, sharding, x.__getitem__)

    return jax.tree.map(put, batch)
