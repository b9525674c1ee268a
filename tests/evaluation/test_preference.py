"""Scores of policies, and their differences prompt by prompt."""

import pytest
from small_evidence import evidence, means, replies

from cai_jax.evaluation.preference import PREFERENCE, headline
from cai_jax.evaluation.registry import evaluate_all
from cai_jax.evaluation.statistics import bootstrap_mean, by_cluster


def measured(given):
    return {(m.measure, m.subject, m.group): m for m in PREFERENCE.evaluate(given)}


def test_scores_and_paired_differences():
    found = means(PREFERENCE.evaluate(evidence()))
    assert found["score", "base", "red_team"] == 0.5
    assert found["score", "rl_cai", "helpful"] == 2.0
    assert found["score", "rl_cai", "all"] == 2.0  # what is only shown is left out
    assert found["score", "rl_cai minus base", "red_team"] == 1.5
    assert found["score", "rl_cai minus base", "all"] == 0.5


def test_the_interval_of_a_difference_is_of_pairs():
    found = measured(evidence())["score", "rl_cai minus base", "all"]
    assert (found.n, found.units) == (4, 4)
    expected = bootstrap_mean(by_cluster([1, 2, 0, -1]), 100, 0)
    assert (found.mean, found.low, found.high) == (expected.mean, expected.low, expected.high)
    assert found.detectable > 1.29  # t quantiles of three degrees of freedom, times 0.645


def test_scores_of_usable_replies_stand_beside_those_of_all():
    """A gain that comes from parsing alone is none where both parse."""
    given = evidence(
        replies={
            "base": replies("base", ["", "a", "a", "a", "a"], [-2, 1, 1, 1, 1]),
            "rl_cai": replies("rl_cai", ["a", "a", "a", "", "a"], [1, 1, 1, -2, 1]),
        }
    )
    found = measured(given)
    assert found["score", "base", "red_team"].mean == -0.5
    assert found["usable_score", "base", "red_team"].mean == 1.0
    assert found["usable_score", "base", "red_team"].n == 1
    assert found["usable", "base", "all"].mean == 0.75
    gain = "rl_cai minus base"
    assert found["score", gain, "red_team"].mean == 1.5
    assert found["usable_score", gain, "red_team"].mean == 0.0
    assert found["usable_score", gain, "all"].n == 2  # where both parse
    assert found["usable", gain, "red_team"].mean == 0.5
    assert found["usable", gain, "red_team"].low >= -1


def test_a_policy_without_usable_replies_has_no_score_of_them():
    given = evidence(replies={"base": replies("base", [""] * 5, [-2] * 5)})
    found = measured(given)
    assert ("usable_score", "base", "all") not in found
    assert found["usable", "base", "all"].high < 0.5


def test_samples_of_a_prompt_are_one_unit():
    one = replies("base", ["a"] * 5, [0, 1, 2, 3, 9])
    given = evidence(replies={"base": one * 3})
    found = measured(given)["score", "base", "all"]
    assert (found.n, found.units) == (12, 4)
    alone = measured(evidence(replies={"base": one}))["score", "base", "all"]
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_the_headline_tells_what_could_have_been_found(monkeypatch):
    monkeypatch.setattr("cai_jax.evaluation.registry.EVALUATORS", {"preference": PREFERENCE})
    (told,) = headline(evaluate_all(evidence())).items()
    assert told[0] == "rl_cai minus base"
    assert "n = 4 of 4 units; a true difference of" in told[1]
    assert "80 % power" in told[1]
