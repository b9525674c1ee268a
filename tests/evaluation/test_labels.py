"""Labels against labelled pairs and against the oracle's order."""

from dataclasses import replace

import pytest
from small_evidence import HARM, HELP, PLAN, evidence, means, oracle

from cai_jax.data.rows import Comparison
from cai_jax.evaluation.labels import LABELS, audits_by_oracle
from cai_jax.feedback.audit import wilson_interval


def comparison(first, second, shown, prompt=HARM):
    """The first label is of one principle, the second undecided."""
    return Comparison(
        id=f"{first}/{second}",
        purpose="training",
        prompt=prompt,
        response_first=first,
        response_second=second,
        first=(),
        second=(),
        probability=shown,
        principle_ids=("p", "q"),
        shown_first=(shown, 0.5),
        shown_second=(shown, 0.5),
        method="",
        seed=0,
        model="",
        feedback_model="",
        constitution_sha256="",
    )


ROWS = [
    comparison("a b", "a", 0.9),
    comparison("a", "a b", 0.8),
    comparison("a", "b", 0.9),  # of one merit
    comparison("a b", "a", 0.9, HELP),  # of none
]


def test_labels_are_measured_where_merits_differ():
    found = audits_by_oracle(oracle, ROWS)
    assert found["pairs"].pairs == 2
    assert found["pairs"].accuracy == 0.5  # one right, one wrong
    assert found["principles"].pairs == 4
    assert found["principles"].accuracy == 0.5  # besides, two undecided
    assert audits_by_oracle(oracle, ROWS[2:]) == {}


def test_the_audit_is_measured_with_its_interval():
    found = {(m.measure, m.subject): m for m in LABELS.evaluate(evidence(comparisons={"": ROWS}))}
    accuracy = found["accuracy", "audit"]
    wilson = pytest.approx((0.75, 0.3006, 0.9544), abs=1e-4)  # three of four
    assert (accuracy.n, (accuracy.mean, accuracy.low, accuracy.high)) == (4, wilson)
    assert found["bag_of_words", "audit"].mean == 1.0
    assert found["length", "audit"].low < found["length", "audit"].mean == 0.5
    assert found["calibration_error", "audit"].mean == 0.1
    assert found["calibration_error", "audit"].low is None
    assert accuracy.units == 4
    assert found["accuracy", "pairs"].mean == 0.5
    principles = found["accuracy", "principles"]  # four judgements, of one prompt
    assert (principles.n, principles.mean, principles.units) == (4, 0.5, 1)
    assert (principles.low, principles.high) == wilson_interval(0.5, 1)


def test_a_contrast_has_no_order():
    names = lambda plan: {m.name for m in LABELS.measures(plan)}
    assert {"picks_option_a", "swap_consistency"} <= names(PLAN)
    plan = replace(PLAN, labeler="contrast", oracle=())
    assert names(plan) == {"accuracy", "bag_of_words", "length", "calibration_error"}
    found = means(LABELS.evaluate(evidence(plan=plan, oracle=None)))
    assert {name for name, _, _ in found} == names(plan)
    assert LABELS.subjects(plan) == ("audit", "development")  # no oracle orders replies
