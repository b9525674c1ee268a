"""What decides which program is compiled, to compare what is listed with what runs."""

from typing import Any

import jax
from jax.sharding import NamedSharding


def described(tree: Any) -> tuple:
    """Shapes, dtypes, and which device holds which part, of arrays that may be abstract.

    By their paths, and hashable. Shardings that are written in two forms are one.
    """
    leaves, _ = jax.tree.flatten_with_path(tree)
    return tuple(
        (jax.tree_util.keystr(path), x.shape, str(x.dtype), _layout(x)) for path, x in leaves
    )


def _layout(x: Any) -> tuple:
    where = x.sharding.devices_indices_map(x.shape)
    parts = tuple(sorted((device.id, str(part)) for device, part in where.items()))
    mesh = x.sharding.mesh if isinstance(x.sharding, NamedSharding) else None
    return x.sharding.memory_kind, mesh, parts
