"""The one place where principles are drawn: in proportion to their weights, without repeats."""

import math
from collections.abc import Collection, Sequence
from typing import TypeVar

from cai_jax.constitution.schema import CritiquePrinciple, FeedbackPrinciple
from cai_jax.keys import named_uniform

Principle = TypeVar("Principle", CritiquePrinciple, FeedbackPrinciple)


def draw_principles(
    principles: Sequence[Principle],
    count: int,
    seed: int,
    *names: str | int,
    tags: Collection[str] = (),
    tag_factor: float = 1.0,
) -> tuple[Principle, ...]:
    """``count`` different principles, each draw in proportion to the weights of what is left.

    The principles race: each arrives after an exponential time with its weight as the rate, and
    the first are drawn. A time depends on the names and on the principle's own id, so that an edit
    of one principle moves those draws alone that it wins or loses, whatever else is in the file.

    Args:
      principles: to draw from; their order does not count.
      count: how many, at most as many as there are.
      seed: of the run.
      *names: of the draw, such as stage, item and round.
      tags: of the prompt.
      tag_factor: how many times likelier a principle is that has one of ``tags``.
    """

    def arrival(principle: Principle) -> float:
        rate = principle.weight * (tag_factor if set(principle.tags) & set(tags) else 1.0)
        return -math.log(named_uniform(seed, *names, principle.id)) / rate

    return tuple(sorted(principles, key=arrival)[:count])
