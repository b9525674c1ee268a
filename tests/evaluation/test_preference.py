"""Scores of policies, and their differences prompt by prompt."""

import numpy as np
from small_evidence import evidence, means

from cai_jax.evaluation.preference import PREFERENCE
from cai_jax.evaluation.statistics import bootstrap_mean


def test_scores_and_paired_differences():
    found = means(PREFERENCE.evaluate(evidence()))
    assert found["score", "base", "red_team"] == 0.5
    assert found["score", "rl_cai", "helpful"] == 2.0
    assert found["score", "rl_cai", "all"] == 2.0  # what is only shown is left out
    assert found["score", "rl_cai minus base", "red_team"] == 1.5
    assert found["score", "rl_cai minus base", "all"] == 0.5


def test_the_interval_of_a_difference_is_of_pairs():
    (found,) = (
        m
        for m in PREFERENCE.evaluate(evidence())
        if (m.subject, m.group) == ("rl_cai minus base", "all")
    )
    assert found.n == 4
    expected = bootstrap_mean(np.array([1, 2, 0, -1], np.float32), 100, 0)
    assert (found.mean, found.low, found.high) == (expected.mean, expected.low, expected.high)
