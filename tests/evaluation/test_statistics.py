"""Intervals of means."""

import math

import numpy as np
import pytest

from cai_jax.evaluation.statistics import bootstrap_mean, mean_over_seeds


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        estimate = bootstrap_mean(rng.normal(2.0, 1.0, 40), 400, seed)
        hits += estimate.low <= 2.0 <= estimate.high
    assert 0.88 < hits / 200 < 0.99
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean(np.array([]), 100, 0)


def test_intervals_over_seeds():
    found = mean_over_seeds([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert math.isnan(mean_over_seeds([1.0]).low)
