"""Confidence intervals of means, of 95 %, that keep to what a quantity can be.

Within a run the independent units are clusters: prompts, whose samples stay together. Between runs
they are seeds. A quantity with two bounds, as a share has, gets Wilson's interval, others a
bootstrap or Student's t.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import optimize, stats

from cai_jax.feedback.audit import wilson_interval

Z = float(stats.norm.ppf(0.975))
POWER = 0.8  # of the differences that are called detectable
DRAWS = 1 << 15  # at once: they stay in a core's cache, and memory does not grow with them


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % confidence interval; None where one unit alone shows no spread."""

    mean: float
    low: float | None
    high: float | None

    def within(self, low: float | None, high: float | None) -> "Estimate":
        """The interval as far as it is within bounds, with its mean; None: there is none."""
        if self.low is None or (low is None and high is None):
            return self
        below, above = np.clip([self.low, self.high], low, high)
        return Estimate(self.mean, min(float(below), self.mean), max(float(above), self.mean))

    def at_least(self, half_width: float) -> "Estimate":
        """The interval, no narrower than that on either side."""
        if self.low is None or self.high is None:
            return self
        low, high = self.mean - half_width, self.mean + half_width
        return Estimate(self.mean, min(self.low, low), max(self.high, high))


@dataclass(frozen=True)
class Clusters:
    """Values as sums and counts of clusters, float [k]: all that a mean over clusters needs."""

    sums: np.ndarray
    sizes: np.ndarray

    @property
    def mean(self) -> float:
        """Of the values."""
        return float(self.sums.sum() / self.sizes.sum())

    @property
    def variance(self) -> float:
        """Of the mean, between clusters (linearised; NaN for one cluster)."""
        k, residuals = len(self.sums), self.sums - self.mean * self.sizes
        scale = k / (k - 1) if k > 1 else math.nan
        return float(scale * np.sum(residuals**2) / self.sizes.sum() ** 2)


def by_cluster(
    values: Sequence[float] | np.ndarray, clusters: Sequence[int] | np.ndarray | None = None
) -> Clusters:
    """Groups values [n] by the number of their cluster [n]; None: each is its own.

    Raises:
      ValueError: there are no values.
    """
    values = np.asarray(values, np.float64)
    if not len(values):
        raise ValueError("statistics: there are no values; give at least one")
    if clusters is None:
        return Clusters(values, np.ones(len(values)))
    which = np.unique(np.asarray(clusters), return_inverse=True)[1]
    return Clusters(np.bincount(which, values), np.bincount(which).astype(np.float64))


def bootstrap_mean(found: Clusters, samples: int, seed: int) -> Estimate:
    """Percentile bootstrap over clusters (Efron 1979), widened for few of them as Student's t is.

    Args:
      found: the values.
      samples: number of bootstrap samples.
      seed: of NumPy's generator.
    """
    k, rng = len(found.sums), np.random.default_rng(seed)
    if k < 2:
        return Estimate(found.mean, None, None)
    means = np.empty(samples)
    at_once, width, alone = max(DRAWS // k, 1), min(k, DRAWS), np.all(found.sizes == 1)
    for start in range(0, samples, at_once):
        totals = np.zeros((2, len(means[start : start + at_once])))
        for at in range(0, k, width):
            drawn = rng.integers(k, size=(totals.shape[1], min(width, k - at)))
            totals[0] += found.sums.take(drawn).sum(axis=1)
            totals[1] += drawn.shape[1] if alone else found.sizes.take(drawn).sum(axis=1)
        means[start : start + at_once] = totals[0] / totals[1]
    wider = math.sqrt(k / (k - 1)) * _t(k) / Z
    low, high = found.mean + wider * (np.quantile(means, [0.025, 0.975]) - found.mean)
    # The mean is within, however its ends round.
    return Estimate(found.mean, float(low), float(high)).at_least(0.0)


def bounded_mean(found: Clusters, low: float, high: float) -> Estimate:
    """Wilson's interval of a mean of values between two bounds, such as a share.

    Of independent values it is Wilson's own. Samples of a cluster count for fewer: for as many as
    have the variance seen between clusters, never fewer than if all of a cluster were equal. One
    cluster shows no spread, and has no interval.

    Raises:
      ValueError: the mean is not between the bounds.
    """
    if not low <= found.mean <= high:
        raise ValueError(f"statistics: a mean of {found.mean:.4g} is not within {low} and {high}")
    n, k, span = found.sizes.sum(), len(found.sums), high - low
    if k < 2:
        return Estimate(found.mean, None, None)
    share, variance = (found.mean - low) / span, found.variance / span**2
    fewest = n**2 / np.sum(found.sizes**2)
    seen = fewest if share in (0, 1) else n
    if variance > 0:
        seen = share * (1 - share) / variance * (Z / _t(k)) ** 2
    return _wilson(found.mean, float(np.clip(seen, fewest, n)), low, high)


def mean_over_seeds(
    values: Sequence[float],
    low: float | None = None,
    high: float | None = None,
    cases: int | None = None,
) -> Estimate:
    """Mean of runs with different seeds.

    Args:
      values: one a run.
      low: what the quantity is never below; with it alone, the interval is on a log scale.
      high: what it is never above; with both, the interval is Wilson's.
      cases: that the values of all runs are means of. A bounded mean is known no better than from
        so many cases, however alike the runs are.
    """
    mean, k = float(np.mean(values)), len(values)
    if k < 2:
        return Estimate(mean, None, None)
    error = float(np.std(values, ddof=1)) / math.sqrt(k)
    if low is not None and high is not None:
        share, most = (mean - low) / (high - low), cases or k
        seen = share * (1 - share) * ((high - low) * Z / (error * _t(k))) ** 2 if error else most
        return _wilson(mean, min(seen, most) if 0 < share < 1 else most, low, high)
    if low is not None and min(values) > low:
        factor = math.exp(_t(k) * error / (mean - low))
        return Estimate(mean, low + (mean - low) / factor, low + (mean - low) * factor)
    return Estimate(mean, mean - _t(k) * error, mean + _t(k) * error).within(low, high)


def difference_over_seeds(
    differences: Sequence[float], most: float | None = None, cases: int | None = None
) -> tuple[Estimate, float | None]:
    """Mean of differences paired by seed, and the smallest that so many seeds would detect.

    Args:
      differences: one a seed.
      most: what a difference is never above, nor below its negative; None: anything.
      cases: pairs behind all of them. Where ``most`` is given, the interval is no narrower than
        ``least_half_width``: equal runs are not sure ones.
    """
    mean, k = float(np.mean(differences)), len(differences)
    if k < 2:
        return Estimate(mean, None, None), None
    error = float(np.std(differences, ddof=1)) / math.sqrt(k)
    least = least_half_width(mean, most, cases) if most and cases else 0.0
    e = Estimate(mean, mean - _t(k) * error, mean + _t(k) * error).at_least(least)
    return e.within(None if most is None else -most, most), _detectable(error, k, least)


def least_half_width(mean: float, most: float, cases: int) -> float:
    """How far a difference of shares is known at best, however alike the pairs seen are.

    Wald's interval with the pseudo-counts of Bonett and Price (2012), if as few pairs differ as
    the mean allows.

    Args:
      mean: of the differences.
      most: what one is never above, nor below its negative.
      cases: pairs.
    """
    net = abs(mean) / most * cases
    variance = ((net + 2) - net**2 / (cases + 2)) / (cases + 2) ** 2
    return Z * most * math.sqrt(variance)


def detectable_difference(found: Clusters, least: float = 0.0) -> float | None:
    """The true mean that a two-sided test at 5 % would tell from 0 with 80 % power.

    None where one cluster shows no spread, or where there is none and nothing bounds the values.

    Args:
      found: differences, paired within clusters; their spread is taken as it is seen.
      least: half width of the interval at best, see ``least_half_width``.
    """
    k = len(found.sums)
    return _detectable(math.sqrt(found.variance), k, least) if k > 1 else None


def _detectable(error: float, units: int, least: float) -> float | None:
    """The same, from the standard error of a mean over units."""
    surely = least * (Z + float(stats.norm.ppf(POWER))) / Z
    return max(error * _noncentrality(units), surely) or None


def cases_needed(share: float, chance: float = 0.5) -> int | None:
    """Independent cases by which a two-sided test at 5 % tells a share from chance, at 80 % power.

    By the normal approximation of the binomial; None where the share is that of chance.
    """
    if math.isclose(share, chance):
        return None
    spread = lambda p: math.sqrt(p * (1 - p))
    power = float(stats.norm.ppf(POWER))
    return math.ceil(((Z * spread(chance) + power * spread(share)) / (share - chance)) ** 2)


@lru_cache
def _noncentrality(units: int) -> float:
    """Standard errors from 0 at which Student's two-sided test of so many units has its power.

    SciPy's noncentral t is NaN for many of its arguments: here the normal mean is integrated over
    quantiles of the spread that is seen.
    """
    at = (np.arange(1 << 13) + 0.5) / (1 << 13)
    limit = _t(units) * np.sqrt(stats.chi2.ppf(at, units - 1) / (units - 1))
    norm = stats.norm
    power = lambda away: float(np.mean(norm.sf(limit - away) + norm.cdf(-limit - away)))
    return float(optimize.brentq(lambda away: power(away) - POWER, 0, 2 * _t(units) + 2))


def _t(units: int) -> float:
    """Student's quantile of a two-sided 95 % interval."""
    return float(stats.t.ppf(0.975, units - 1)) if units > 1 else math.nan


def _wilson(mean: float, cases: float, low: float, high: float) -> Estimate:
    """Wilson's interval between two bounds."""
    ends = wilson_interval((mean - low) / (high - low) * cases, cases)
    return Estimate(mean, *(low + (high - low) * end for end in ends)).within(low, high)
