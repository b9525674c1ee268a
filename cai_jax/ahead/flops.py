"""Floating point operations of a traced program: those of matmuls, which are nearly all."""

from math import prod
from typing import Any

import jax
from jax.extend import core


def matmul_flops(jaxpr: core.ClosedJaxpr | core.Jaxpr, devices: int) -> float:
    """Floating point operations of one call, over all devices: two for each multiply-add.

    The body of a loop counts once per iteration; a loop of data-dependent length counts up to the
    limit in its condition. Of branches the costliest counts.

    Args:
      jaxpr: of a traced function, closed or open.
      devices: number of devices of the mesh; the body of a shard_map runs on each.

    Raises:
      ValueError: the condition of a loop has no constant limit.
    """
    return sum(_equation_flops(equation, devices) for equation in jaxpr.eqns)


def _equation_flops(equation: core.JaxprEqn, devices: int) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = _shape(equation.invars[0])
        return 2.0 * prod(_shape(equation.outvars[0])) * prod(left[i] for i in contracted)
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


def _shape(variable: core.Var | core.Literal) -> tuple[int, ...]:
    assert isinstance(variable.aval, jax.core.ShapedArray)
    return variable.aval.shape


def _jaxprs(params: dict[str, Any]) -> list[core.ClosedJaxpr | core.Jaxpr]:
    """The jaxprs among an equation's parameters, without the condition of a loop."""
    values = [v for key, v in params.items() if "cond_jaxpr" not in key]
    flat = [x for v in values for x in (v if isinstance(v, tuple | list) else (v,))]
    return [x for x in flat if isinstance(x, core.ClosedJaxpr | core.Jaxpr)]


def _limit(condition: core.ClosedJaxpr) -> int:
    """The constant that a loop's counter stays below."""
    for equation in condition.eqns:
        if equation.primitive.name == "lt":
            limit = equation.invars[1]
            if isinstance(limit, core.Literal):
                return int(limit.val)
    raise ValueError("the condition of a loop compares its counter with no constant")
