"""Operations of a traced program, of products alone: they are nearly all."""

from math import prod
from typing import Any

from jax.extend import core


def matmul_flops(jaxpr: Any, devices: int) -> float:
    """Floating point operations of one call, over all devices: two for each multiply-add.

    Loops count as often as they run; one whose length the data decides, as often as the limit in
    its condition allows. Of branches the costliest counts.

    Args:
      jaxpr: of a traced function, closed or open.
      devices: of the mesh; what stands in a shard_map is for one of them.

    Raises:
      ValueError: a loop has no limit that can be read.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    return sum(_equation_flops(equation, devices) for equation in jaxpr.eqns)


def _equation_flops(equation: Any, devices: int) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        return 2.0 * prod(equation.outvars[0].aval.shape) * prod(left[i] for i in contracted)
    inner = [matmul_flops(x, devices) for x in _jaxprs(params)]
    if name == "scan":
        return params["length"] * sum(inner)
    if name == "while":
        return _limit(params["cond_jaxpr"]) * sum(inner)
    if name == "cond":
        return max(inner, default=0.0)
    if name == "shard_map":
        return devices * sum(inner)
    if name == "pallas_call":
        return prod(params["grid_mapping"].grid) * sum(inner)
    return sum(inner)


def _jaxprs(params: dict[str, Any]) -> list[Any]:
    """Programs among an equation's parameters, but the condition of a loop."""
    values = [v for key, v in params.items() if "cond_jaxpr" not in key]
    flat = [x for v in values for x in (v if isinstance(v, tuple | list) else (v,))]
    return [x for x in flat if isinstance(x, core.ClosedJaxpr | core.Jaxpr)]


def _limit(condition: Any) -> int:
    """The number that a loop's counter stays below."""
    for equation in condition.jaxpr.eqns:
        if equation.primitive.name == "lt":
            limit = equation.invars[1]
            if isinstance(limit, core.Literal):
                return int(limit.val)
    raise ValueError("a loop whose condition compares its counter with no constant")
