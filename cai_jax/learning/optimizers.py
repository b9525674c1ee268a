"""Optimizers."""

from functools import cache

import optax


@cache  # optimizers of the same numbers are one static argument, so one program
def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    max_grad_norm: float,
    adam_eps: float = 1e-8,
    decay_steps: int = 0,
) -> optax.GradientTransformation:
    """Adam with clipping by global norm and linear warmup.

    The rate stays constant, or falls along a cosine, to 0 after ``decay_steps`` updates.
    """
    schedule = optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1))
    if decay_steps:
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, learning_rate, max(warmup_steps, 1), decay_steps + 1
        )
    # Shifted by one, lest the first update be void; warmup_steps=0 is then a constant rate.
    rate = lambda step: schedule(step + 1)
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.adam(rate, b1=0.9, b2=0.95, eps=adam_eps)
    )
