"""Confidence intervals of means."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: np.ndarray, samples: int, seed: int) -> Estimate:
    """Percentile bootstrap (Efron 1979) of the mean of independent values [n].

    Args:
      values: independent samples.
      samples: number of bootstrap samples.
      seed: of NumPy's generator.

    Raises:
      ValueError: there are no values.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ValueError("bootstrap: there are no values; give at least one")
    rng = np.random.default_rng(seed)
    means = values[rng.integers(len(values), size=(samples, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return Estimate(float(values.mean()), float(low), float(high))


def mean_over_seeds(values: Sequence[float]) -> Estimate:
    """Mean of runs with different seeds, with Student's t interval; that is NaN for one run."""
    mean = float(np.mean(values))
    if len(values) < 2:
        return Estimate(mean, math.nan, math.nan)
    standard_error = float(np.std(values, ddof=1) / math.sqrt(len(values)))
    half_width = float(stats.t.ppf(0.975, len(values) - 1)) * standard_error
    return Estimate(mean, mean - half_width, mean + half_width)
