"""Optimizers."""

from functools import cache

import optax
from flax import nnx

from cai_jax.models.layers import HeadParam
from cai_jax.models.params import map_variables


@cache  # optimizers of the same numbers are one static argument, so one program
def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    max_grad_norm: float,
    adam_eps: float = 1e-8,
    decay_steps: int = 0,
    head_learning_rate: float | None = None,
) -> optax.GradientTransformation:
    """Adam with clipping by global norm and linear warmup.

    The rate stays constant, or falls along a cosine, to 0 after ``decay_steps`` updates. Heads have
    ``head_learning_rate`` in its place, where there is one.
    """
    schedule = optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1))
    if decay_steps:
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, learning_rate, max(warmup_steps, 1), decay_steps + 1
        )
    # Shifted by one, lest the first update be void; warmup_steps=0 is then a constant rate.
    rate = lambda step: schedule(step + 1)
    ratio = 1.0 if head_learning_rate is None else head_learning_rate / learning_rate
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm),
        optax.adam(rate, b1=0.9, b2=0.95, eps=adam_eps),
        # Adam's steps are proportional to the rate, so this keeps its one state for all parameters.
        optax.stateless(lambda updates, params: updates if ratio == 1 else _heads(updates, ratio)),
    )


def _heads(updates: nnx.State, factor: float) -> nnx.State:
    """Updates, those of heads times a factor."""

    def scale(variable: nnx.Variable) -> nnx.Variable:
        head = isinstance(variable, HeadParam)
        return variable.replace(variable.get_value() * factor) if head else variable

    return map_variables(scale, updates)
