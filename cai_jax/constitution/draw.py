"""The one place where principles are drawn: in proportion to their weights, without repeats."""

from collections.abc import Collection, Sequence
from typing import TypeVar

import numpy as np

from cai_jax.constitution.schema import CritiquePrinciple, FeedbackPrinciple

Principle = TypeVar("Principle", CritiquePrinciple, FeedbackPrinciple)


def draw_principles(
    principles: Sequence[Principle],
    count: int,
    rng: np.random.Generator,
    tags: Collection[str] = (),
    tag_factor: float = 1.0,
) -> tuple[Principle, ...]:
    """``count`` different principles, each draw in proportion to the weights of what is left.

    Args:
      principles: to draw from.
      count: how many, at most as many as there are.
      rng: of the draw.
      tags: of the prompt.
      tag_factor: how many times likelier a principle is that has one of ``tags``.
    """
    weights = np.array(
        [p.weight * (tag_factor if set(p.tags) & set(tags) else 1.0) for p in principles]
    )
    # Equal weights draw as the constitutions before there were weights did.
    even = bool(np.all(weights == weights[0]))
    shares = None if even else weights / weights.sum()
    chosen = rng.choice(len(principles), size=count, replace=False, p=shares)
    return tuple(principles[int(i)] for i in chosen)
