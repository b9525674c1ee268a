"""Intervals of means."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: np.ndarray, samples: int, seed: int) -> Estimate:
    """Percentile bootstrap (Efron 1979) of the mean of independent values.

    Raises:
      ValueError: there are no values.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ValueError("bootstrap: there are no values")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(samples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))
