"""How far the reward runs ahead of the second preference model."""

from dataclasses import replace

from small_evidence import PLAN, evidence

from cai_jax.evaluation.over_optimisation import OVER_OPTIMISATION, measures


def test_the_gap_is_between_the_two_models():
    found = {(m.measure, m.subject): m.mean for m in OVER_OPTIMISATION.evaluate(evidence())}
    assert found["reward", "iteration 2"] == 2.0
    assert found["second", "iteration 2"] == 0.5
    assert found["gap", "iteration 2"] == 1.5
    assert found["gap", "iteration 0"] == 0.0


def test_a_run_that_stopped_early_has_no_look_at_its_planned_end():
    subjects = {m.subject for m in OVER_OPTIMISATION.evaluate(evidence())}
    assert subjects < set(OVER_OPTIMISATION.subjects(PLAN))


def test_nobody_looked():
    assert measures(replace(PLAN, looks=())) == ()
