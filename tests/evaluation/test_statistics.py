"""Intervals of means: where they must be, and how often they hold the truth."""

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cai_jax.evaluation.measure import Measurement
from cai_jax.evaluation.statistics import (
    bootstrap_mean,
    bounded_mean,
    by_cluster,
    cases_needed,
    detectable_difference,
    difference_over_seeds,
    mean_over_seeds,
)
from cai_jax.feedback.audit import wilson_interval


def coverage(interval, draw, truth, times=400):
    """How often an interval of what is drawn holds the truth."""
    found = [interval(draw(np.random.default_rng(n))) for n in range(times)]
    return np.mean([e.low <= truth <= e.high for e in found])


@pytest.mark.parametrize("prompts", [4, 40])
def test_the_bootstrap_covers_the_mean(prompts):
    draw = lambda rng: by_cluster(rng.normal(2.0, 1.0, prompts))
    assert 0.91 < coverage(lambda found: bootstrap_mean(found, 400, 0), draw, 2.0) < 0.99


def test_samples_of_a_prompt_stay_together():
    """Four samples a prompt that are nearly equal are no four prompts."""
    which = np.repeat(np.arange(20), 4)
    draw = lambda rng: rng.normal(0.0, 1.0, 20)[which] + rng.normal(0.0, 0.1, 80)
    together = lambda values: bootstrap_mean(by_cluster(values, which), 300, 0)
    apart = lambda values: bootstrap_mean(by_cluster(values), 300, 0)
    assert 0.91 < coverage(together, draw, 0.0) < 0.99
    assert coverage(apart, draw, 0.0) < 0.8


@pytest.mark.parametrize("share", [0.03, 0.4, 0.98])
@pytest.mark.parametrize("spread", [0.01, 2.0])
def test_shares_of_samples_of_prompts_are_covered(share, spread):
    """Prompts differ, by a beta distribution: hardly, and so that most are 0 or 1."""
    which = np.repeat(np.arange(30), 4)
    a, b = share / spread, (1 - share) / spread
    draw = lambda rng: (rng.random(120) < rng.beta(a, b, 30)[which]).astype(float)
    found = coverage(lambda v: bounded_mean(by_cluster(v, which), 0, 1), draw, share, 1000)
    assert found > 0.925


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 7), (76, 76)])
def test_independent_shares_have_wilsons_interval(right, n):
    e = bounded_mean(by_cluster([1.0] * right + [0.0] * (n - right)), 0, 1)
    theirs = stats.binomtest(right, n).proportion_ci(method="wilson")
    assert (e.low, e.high) == pytest.approx((theirs.low, theirs.high), abs=1e-6)


def test_equal_samples_of_a_prompt_are_one():
    e = bounded_mean(by_cluster([1.0] * 8, [0, 0, 0, 0, 1, 1, 1, 1]), 0, 1)
    assert (e.low, e.high) == pytest.approx(wilson_interval(2, 2))
    on_two = bounded_mean(by_cluster([2.0] * 2), 0, 2)  # other bounds, the same interval
    assert (on_two.low / 2, on_two.high / 2) == pytest.approx((e.low, e.high))
    with pytest.raises(ValueError, match="not within 0 and 1"):
        bounded_mean(by_cluster([2.0]), 0, 1)


@given(
    values=st.lists(st.floats(0, 1), min_size=1, max_size=12),
    clusters=st.lists(st.integers(0, 3), min_size=12, max_size=12),
)
def test_an_interval_has_its_mean_within_and_keeps_to_its_bounds(values, clusters):
    """To the last bit: who draws it takes its ends from the mean."""
    found = by_cluster(values, clusters[: len(values)])
    shares = [bounded_mean(found, 0, 1), bootstrap_mean(found, 100, 0).within(0, 1)]
    shares += [mean_over_seeds(values, 0, 1, 40), mean_over_seeds(values, 0, 1)]
    for e in shares:
        assert e.low is None or 0 <= e.low <= e.mean <= e.high <= 1
    nats = mean_over_seeds(values, 0.0)
    assert nats.low is None or 0 <= nats.low <= nats.mean <= nats.high
    gain, detectable = difference_over_seeds([2 * v - 1 for v in values], 1.0, 40)
    assert gain.low is None or -1 <= gain.low <= gain.high <= 1
    assert detectable is None or detectable > 0


def test_intervals_over_seeds():
    found = mean_over_seeds([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert mean_over_seeds([1.0], 0, 1).low is None
    negative = mean_over_seeds([-0.2, 0.1, 0.4], low=0.0)  # an estimate, of what is never below 0
    assert negative.low == 0.0 < negative.high


def test_equal_seeds_are_not_certain():
    """Three runs at 100 % of 76 replies each say no more than 228 replies."""
    e = mean_over_seeds([1.0] * 3, 0, 1, 228)
    assert (e.low, e.high) == pytest.approx(wilson_interval(228, 228))
    gain, detectable = difference_over_seeds([0.0] * 3, 1.0, 228)
    assert -0.02 < gain.low < -0.005 < 0.005 < gain.high < 0.02
    assert 0.01 < detectable < 0.03


@pytest.mark.parametrize("seeds", [3, 5])
def test_seeds_are_covered(seeds):
    share = lambda rng: np.clip(rng.normal(0.7, 0.08, seeds), 0, 1)
    assert 0.92 < coverage(lambda v: mean_over_seeds(v, 0, 1, 500), share, 0.7, 1000) < 0.985
    nats = lambda rng: rng.gamma(2, 1, seeds)
    assert 0.92 < coverage(lambda v: mean_over_seeds(v, 0), nats, 2.0, 1000) < 0.985


def test_a_difference_that_is_detectable_is_found_four_times_in_five():
    rng, n, truth = np.random.default_rng(0), 40, 0.4
    found = by_cluster(rng.normal(0, 1, 100_000))
    least = detectable_difference(found) * math.sqrt(100_000 / n)  # as of 40 of this spread
    assert least == pytest.approx(2.8 / math.sqrt(n), rel=0.02)
    gains = rng.normal(least, 1, (4000, n))
    t = gains.mean(1) / gains.std(1, ddof=1) * math.sqrt(n)
    assert 0.75 < np.mean(t > stats.t.ppf(0.975, n - 1)) < 0.82
    runs = rng.normal(truth, 0.2, 5)
    gain, detectable = difference_over_seeds(runs)
    expected = stats.ttest_1samp(runs, 0).confidence_interval()
    assert (gain.low, gain.high) == pytest.approx((expected.low, expected.high))
    assert detectable > gain.mean - gain.low


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.75, 0.9])
def test_cases_that_are_needed_have_the_power_that_is_told(share):
    """By the binomial itself: so many cases tell the share from chance four times in five."""
    n = cases_needed(share)
    right = np.arange(n + 1)
    tells = stats.binom.cdf(right, n, 0.5), stats.binom.sf(right - 1, n, 0.5)
    power = float(np.sum(stats.binom.pmf(right, n, share)[np.min(tells, axis=0) <= 0.025]))
    assert 0.68 < power < 0.92  # it goes in steps, of which few cases have large ones
    assert cases_needed(1 - share) == n
    assert cases_needed(0.5) is None


def test_three_seeds_detect_with_the_power_that_is_told():
    rng, units = np.random.default_rng(0), 3
    spread = by_cluster([-1.0, 0.0, 1.0])  # a standard deviation of 1
    gains = rng.normal(detectable_difference(spread), 1, (200_000, units))
    t = np.abs(gains.mean(1) / gains.std(1, ddof=1)) * math.sqrt(units)
    assert np.mean(t > stats.t.ppf(0.975, units - 1)) == pytest.approx(0.8, abs=0.01)


def test_what_shows_no_spread_says_nothing():
    assert detectable_difference(by_cluster([1.0, 1.0])) is None
    assert difference_over_seeds([0.5, 0.5])[1] is None
    assert bounded_mean(by_cluster([0.0, 1.0], [7, 7]), 0, 1).low is None


def test_an_interval_holds_its_mean():
    e = mean_over_seeds([-0.3, -0.1], low=0.0)
    assert e.low == e.mean < e.high
    with pytest.raises(ValueError, match="kl of rl: a mean of -1 is not within"):
        Measurement("kl", "rl", "", 3, -1.0, 0.0, 1.0)


def test_memory_does_not_grow_with_values_times_resamples():
    values = np.random.default_rng(0).normal(size=300_000)
    tracemalloc.start()
    e = bootstrap_mean(by_cluster(values), 30, 0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20e6
    assert e.low < e.mean < e.high


def test_there_must_be_values():
    with pytest.raises(ValueError, match="no values"):
        by_cluster([])
