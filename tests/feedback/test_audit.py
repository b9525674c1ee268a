"""The audit of a labeler: accuracy, bias, calibration."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.stats import binomtest

from cai_jax.feedback.audit import audit, calibration_error, reliability, wilson_interval
from cai_jax.feedback.baselines import Baselines
from cai_jax.feedback.labeler import Judgement


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (60, 120), (33, 34)])
def test_wilson_interval_matches_scipy(k, n):
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(k, n), (theirs.low, theirs.high), atol=1e-6)


@given(n=st.floats(1, 1e6), share=st.floats(0, 1))
@example(n=65.0, share=1.0)  # whose upper end was 0.9999999999999998
def test_a_proportion_is_within_its_interval(n, share):
    low, high = wilson_interval(share * n, n)
    assert 0 <= low <= share * n / n <= high <= 1


def test_calibration_error_by_hand():
    probability = np.array([0.95, 0.95, 0.15, 0.15])
    outcome = np.array([True, False, False, False])
    np.testing.assert_allclose(calibration_error(probability, outcome), (2 * 0.45 + 2 * 0.15) / 4)


def test_labels_that_are_about_the_same_are_told_together():
    probability = np.array([0.02, 0.08, 0.5, 1.0])
    outcome = np.array([False, True, True, True])
    low, middle, high = reliability(probability, outcome, ["a", "b", "c", "d"])
    np.testing.assert_allclose((low.label, low.share, low.pairs), (0.05, 0.5, 2))
    assert (middle.label, middle.share, middle.pairs) == (0.5, 1, 1)
    assert (high.label, high.pairs) == (1.0, 1)
    assert (low.share_low, low.share_high) == wilson_interval(1, 2)
    alike, *_ = reliability(probability, outcome, ["a", "a", "c", "d"])
    assert (alike.share_low, alike.share_high) == wilson_interval(0.5, 1)


TOSS = Baselines(0.5, 0.5, 40)


def judgements(shown_first, shown_second):
    return [
        Judgement(np.array([a]), np.array([b]))
        for a, b in zip(shown_first, shown_second, strict=True)
    ]


def test_audit_sees_position_bias():
    always_a = audit(judgements([0.9] * 8, [0.1] * 8), [True, False] * 4, TOSS)
    assert always_a.picks_option_a == 1.0
    assert always_a.swap_consistency == 0.0
    assert always_a.accuracy == 0.5
    assert not always_a.better_than_chance
    truth = [True, False] * 20
    right = audit(
        judgements([0.8 if t else 0.2 for t in truth], [0.7 if t else 0.3 for t in truth]),
        truth,
        TOSS,
    )
    assert right.accuracy == 1.0
    assert right.better_than_chance
    assert right.picks_option_a == 0.5
    wrong = audit(
        judgements([0.2 if t else 0.8 for t in truth], [0.2 if t else 0.8 for t in truth]),
        truth,
        TOSS,
    )
    assert not wrong.better_than_chance


def test_pairs_that_open_alike_are_one_unit():
    of = lambda openings: audit(
        judgements([0.9] * 8, [0.9] * 8), [True] * 8, Baselines(0.5, 0.5, openings)
    )
    assert of(8).better_than_chance
    alike = of(2)  # two prompts say little, however many pairs they have
    assert not alike.better_than_chance
    assert (alike.accuracy_low, alike.accuracy_high) == wilson_interval(2, 2)


def test_a_labeler_below_a_baseline_is_told_its_name():
    below = lambda *shares: (
        audit(
            judgements([0.9] * 4, [0.9] * 4), [True, True, True, False], Baselines(*shares, 4)
        ).better_baselines
    )
    assert below(0.8, 0.7) == ["bag_of_words"]  # it is right on 0.75
    assert below(0.75, 0.9) == ["length"]
    assert below(0.9, 0.9) == ["bag_of_words", "length"]
    assert below(0.75, 0.75) == []
