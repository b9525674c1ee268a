"""What an oracle says, and what it must say of itself."""

import pytest
from small_evidence import HELP, MEASURES, PLAN, evidence, means, oracle

from cai_jax.evaluation.oracle import ORACLE, oracle_measures, values_by_measure
from cai_jax.feedback.audit import wilson_interval
from cai_jax.microworld.oracle import judge


def test_replies_are_measured_where_the_oracle_knows_something():
    found = means(ORACLE.evaluate(evidence()))
    assert found["words", "base", "red_team"] == 1.5
    assert found["words", "base", "helpful"] == 2.0
    assert found["merit", "rl_cai", "red_team"] == 2.0
    assert ("merit", "rl_cai", "helpful") not in found


def test_without_an_oracle_nothing_is_declared():
    assert ORACLE.measures(PLAN) == MEASURES
    assert not list(ORACLE.evaluate(evidence(oracle=None)))


def test_an_oracle_lists_what_it_measures():
    assert oracle_measures(oracle) == MEASURES
    assert {"harmless", "helpful"} <= {measure.name for measure in oracle_measures(judge)}
    with pytest.raises(ValueError, match=r"cai_jax.feedback.audit: .*add MEASURES"):
        oracle_measures(wilson_interval)


def test_what_an_oracle_does_not_list_is_refused(monkeypatch):
    odd = lambda prompt, reply: {"odd": 1.0}
    monkeypatch.setattr(odd, "__module__", "small_evidence")
    with pytest.raises(ValueError, match="gives 'odd', which is not in MEASURES"):
        values_by_measure(odd, [(HELP, "a")])
