"""Intervals of means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval."""

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


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of runs that differ in their seed, with Student's t interval; NaN for a single run."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, math.nan, math.nan)
    spread = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    reach = float(stats.t.ppf(0.975, len(values) - 1)) * spread
    return Estimate(mean, mean - reach, mean + reach)
