"""What is declared before a run is what can be measured in it."""

from dataclasses import replace

import pytest
from small_evidence import HARM, PLAN, evidence

from cai_jax.data.readers import LabelledPair
from cai_jax.evaluation.evaluator import Evaluator, policies
from cai_jax.evaluation.measure import Measure, Measurement
from cai_jax.evaluation.preference_model import KINDS
from cai_jax.evaluation.registry import EVALUATORS, declared_keys, evaluate_all

PAIRS = {kind: [LabelledPair("1", HARM, "a b", "a")] for kind in KINDS}


@pytest.mark.parametrize("oracle", [True, False])
def test_all_that_is_declared_is_measured(oracle):
    plan = PLAN if oracle else replace(PLAN, oracle=(), labeler="contrast")
    given = evidence(plan=plan, pairs=PAIRS, **({} if oracle else {"oracle": None}))
    given = replace(given, audits=dict.fromkeys(("audit", "development"), given.audits["audit"]))
    found = evaluate_all(given)
    absent = {key for key in declared_keys(plan) if key.startswith("labels.")}  # no comparisons
    absent = {key for key in absent if key.endswith(("/pairs", "/principles"))}
    absent |= {key for key in declared_keys(plan) if key.endswith("/iteration 4")}  # it stopped
    assert set(found.measurements) == set(declared_keys(plan)) - absent
    assert len(set(declared_keys(plan))) == len(declared_keys(plan))
    assert "preference.score/rl_cai minus base/all" in found.measurements
    assert "revisions.score/revision 2" in found.measurements  # no group, no slash


def toy(measured):
    measure = Measure("length", "characters", "lower", "of a reply", ("helpful",))
    evaluate = lambda evidence: [Measurement(measured, "base", "helpful", 1, 7.0)]
    return Evaluator("Toy", policies, lambda plan: (measure,), evaluate)


def test_an_evaluator_is_one_entry(monkeypatch):
    monkeypatch.setitem(EVALUATORS, "toy", toy("length"))
    assert "toy.length/rl_cai/helpful" in declared_keys(PLAN)
    found = evaluate_all(evidence(pairs=PAIRS))
    assert found.measurements["toy.length/base/helpful"].mean == 7.0
    assert found.sections[-1].title == "Toy"


def test_what_is_not_declared_is_refused(monkeypatch):
    monkeypatch.setitem(EVALUATORS, "toy", toy("width"))
    with pytest.raises(ValueError, match=r"toy\.width/base/helpful is measured, but not declared"):
        evaluate_all(evidence(pairs=PAIRS))
