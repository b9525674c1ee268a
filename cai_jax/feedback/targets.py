"""What training learns from the labels of comparisons."""

from collections.abc import Sequence

import numpy as np

from cai_jax.data.rows import Comparison
from cai_jax.keys import named_rng


def with_targets(
    rows: Sequence[Comparison], kind: str, seed: int
) -> list[tuple[Comparison, float]]:
    """The comparisons that are trained on, each with P(first is better) as its target.

    Args:
      rows: all comparisons.
      kind: "soft": as labelled; "hard": 1 for the likelier response, else 0; "shuffled": the same
        labels in a random order, which keeps their distribution and nothing else; "none": no
        comparison, so that people's helpfulness pairs are alone.
      seed: of the order.
    """
    labels = np.array([row.probability for row in rows], np.float64)
    if kind == "none":
        return []
    if kind == "hard":
        labels = (1 + np.sign(labels - 0.5)) / 2
    if kind == "shuffled":
        labels = named_rng(seed, "feedback", "shuffled").permutation(labels)
    return list(zip(rows, labels.tolist(), strict=True))
