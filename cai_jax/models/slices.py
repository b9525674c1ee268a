"""Slices of arrays that may be bfloat16, at full speed on CPUs too.

XLA's CPU compiler slices and gathers bfloat16 by way of float32, and converts the whole array
before: a forward of few tokens spent most of its time on its stacked weights. Bits are taken as
they are. Where bits are taken, bfloat16 arrays get no gradient; parameters that are trained are
float32.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

Body = Callable[[Any, Any], tuple[Any, Any]]


def scan(
    body: Body, carry: Any, xs: Any, remat: Callable[[Body], Body] = lambda body: body
) -> tuple[Any, Any]:
    """``jax.lax.scan``.

    Args:
      body: from carry and a slice of ``xs`` to carry and a slice of ``ys``.
      carry: at first.
      xs: arrays with a common leading axis.
      remat: ``jax.checkpoint`` with a policy, for the body with all that is done to its slices:
        what is saved for the backward pass is then ``xs``, and not a copy of every slice.
    """
    if not on_cpu():
        return jax.lax.scan(remat(body), carry, xs)

    def on_bits(carry: Any, bits: Any) -> tuple[Any, Any]:
        carry, ys = body(carry, _floats(bits))
        return carry, _bits(ys)

    carry, ys = jax.lax.scan(remat(on_bits), carry, _bits(xs))
    return carry, _floats(ys)


def take(tree: Any, index: Any) -> Any:
    """``x[index]`` of every array."""
    if not on_cpu():
        return jax.tree.map(lambda x: x[index], tree)
    return _floats(jax.tree.map(lambda x: x[index], _bits(tree)))


def on_one_cpu() -> bool:
    """Whether a program is for one CPU, whose arrays nothing splits."""
    return on_cpu() and jax.sharding.get_abstract_mesh().size <= 1


def on_cpu() -> bool:
    """Whether a program is for CPUs."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return (device.platform if device else jax.default_backend()) == "cpu"


def _bits(tree: Any) -> Any:
    return _reread(tree, jnp.bfloat16, jnp.uint16)


def _floats(tree: Any) -> Any:
    return _reread(tree, jnp.uint16, jnp.bfloat16)


def _reread(tree: Any, one: Any, other: Any) -> Any:
    """The bits of arrays of one type, read as another."""
    return jax.tree.map(
        lambda x: jax.lax.bitcast_convert_type(x, other) if x.dtype == one else x, tree
    )
