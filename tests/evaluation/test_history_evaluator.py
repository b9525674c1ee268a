"""Metrics of reinforcement learning."""

from dataclasses import replace

from small_evidence import PLAN, evidence, means

from cai_jax.evaluation.history import HISTORY


def test_both_ends_of_what_the_algorithm_shows():
    found = means(HISTORY.evaluate(evidence()))
    assert found == {
        ("score", "first", ""): 0.0,
        ("kl_k3", "first", ""): 0.0,
        ("score", "last", ""): 1.5,
        ("kl_k3", "last", ""): 0.2,
    }


def test_a_metric_that_nobody_described_is_measured():
    plan = replace(PLAN, metrics=("odd",))
    assert [measure.name for measure in HISTORY.measures(plan)] == ["odd"]
    assert (
        means(HISTORY.evaluate(evidence(plan=plan, history=[{"odd": 3.0}])))["odd", "last", ""] == 3
    )
