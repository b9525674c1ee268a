"""Statistics, the audit, text measures, and the page."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cai_jax.evaluation.statistics import bootstrap_mean
from cai_jax.evaluation.text import distinct_n, refusal_rate
from cai_jax.feedback.audit import audit, calibration_error, wilson_interval
from cai_jax.feedback.labelers import Judgement
from cai_jax.parallel.mesh import make_mesh


@pytest.mark.parametrize(("k", "n"), [(0, 10), (7, 10), (60, 120), (33, 34)])
def test_wilson_interval_matches_scipy(k, n):
    theirs = binomtest(k, n).proportion_ci(method="wilson")
    np.testing.assert_allclose(wilson_interval(k, n), (theirs.low, theirs.high), atol=1e-6)


def test_calibration_error_by_hand():
    probability = np.array([0.95, 0.95, 0.15, 0.15])
    outcome = np.array([True, False, False, False])
    np.testing.assert_allclose(calibration_error(probability, outcome), (2 * 0.45 + 2 * 0.15) / 4)


def judgements(shown_first, shown_second):
    return [
        Judgement(np.array([a]), np.array([b]))
        for a, b in zip(shown_first, shown_second, strict=True)
    ]


def test_audit_sees_position_bias():
    always_a = audit(judgements([0.9] * 8, [0.1] * 8), [True, False] * 4)
    assert always_a.picks_option_a == 1.0
    assert always_a.swap_consistency == 0.0
    assert always_a.accuracy == 0.5
    assert not always_a.better_than_chance
    truth = [True, False] * 20
    right = audit(
        judgements([0.8 if t else 0.2 for t in truth], [0.7 if t else 0.3 for t in truth]), truth
    )
    assert right.accuracy == 1.0
    assert right.better_than_chance
    assert right.picks_option_a == 0.5
    wrong = audit(
        judgements([0.2 if t else 0.8 for t in truth], [0.2 if t else 0.8 for t in truth]), truth
    )
    assert not wrong.better_than_chance


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        estimate = bootstrap_mean(rng.normal(2.0, 1.0, 40), 400, seed)
        hits += estimate.low <= 2.0 <= estimate.high
    assert 0.88 < hits / 200 < 0.99
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean(np.array([]), 100, 0)


def test_distinct_and_refusals():
    assert distinct_n(["a b a b"], 1) == 0.5
    assert distinct_n(["a b a b"], 2) == 2 / 3
    assert distinct_n([], 2) == 0.0
    refusing = [
        "I\u2019m sorry, but I can\u2019t help with that.",
        "I cannot fulfill this.",
        "As an AI, no.",
    ]
    helping = ["I'm sorry to hear about your dog!", "Sure, I can help.", "I don't mind."]
    assert refusal_rate(refusing) == 1.0
    assert refusal_rate(helping) == 0.0


def test_mesh_sizes_are_checked():
    assert dict(make_mesh(data=2, fsdp=-1, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    with pytest.raises(ValueError, match="there are 8"):
        make_mesh(data=3, fsdp=1, tensor=1)
    with pytest.raises(ValueError, match="only one axis"):
        make_mesh(data=-1, fsdp=-1)
