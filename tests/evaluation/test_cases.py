"""A constitution tried on its cases: worked out on judgements whose answers are known."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from cai_jax.constitution.schema import Case, FeedbackPrinciple, load_constitution
from cai_jax.evaluation.cases import Judged, as_text, judge_cases, pairs_of, scores
from cai_jax.feedback.labeler import Judgement
from cai_jax.prompts.messages import assistant, user

SMALL = load_constitution(ROOT / "constitutions" / "groups" / "teachers.yaml")
PRINCIPLES = tuple(
    FeedbackPrinciple(id_, "us", ("general",), f"{id_}?", f"{id_}.", f"not {id_}.")
    for id_ in ("right", "turned", "biased", "untested")
)
CASES = tuple(
    Case(f"c{i}", (f"How {i}?",), f"better {i}", f"worse {i}", ("right", "turned", "biased"))
    for i in range(4)
)
C = replace(SMALL, feedback=PRINCIPLES, cases=CASES)
# P(better) under each principle, where it is shown first and where second; no principle is right.
SHOWN = {"right": (0.9, 0.9), "turned": (0.2, 0.2), "biased": (0.9, 0.2), "none": (0.8, 0.8)}


class Known:
    """A labeler whose answers depend on the principle alone."""

    def judge(self, pairs):
        self.asked = pairs
        answers = [
            np.array([SHOWN.get(p.id, (0.6, 0.6)) for p in pair.principles]) for pair in pairs
        ]
        return [Judgement(a[:, 0], a[:, 1]) for a in answers]


def found(others=1, c=C):
    return {s.id: s for s in scores(c, judge_cases(Known(), c, others, seed=0))}


def test_a_case_is_judged_under_its_principles_some_others_and_none():
    labeler = Known()
    judge_cases(labeler, C, 0, seed=0)
    for pair in labeler.asked:
        assert [p.id for p in pair.principles] == ["right", "turned", "biased", "none"]
    judge_cases(labeler, C, 9, seed=0)
    assert [p.id for p in labeler.asked[0].principles][3:] == ["untested", "none"]


def test_principles_are_scored_by_their_cases():
    s = found()
    assert set(s) == {"all", "right", "turned", "biased"}
    assert [s[id_].audit.accuracy for id_ in ("right", "turned", "biased")] == [1, 0, 1]
    assert s["all"].audit.accuracy == pytest.approx(2 / 3)
    assert s["all"].audit.openings == 4  # three judgements of a case are not three cases
    assert s["right"].audit.accuracy_low == pytest.approx(0.51, abs=0.01)  # Wilson, 4 of 4
    assert s["right"].audit.swap_consistency == 1
    assert (s["biased"].audit.swap_consistency, s["biased"].audit.picks_option_a) == (0, 1)


def test_principles_that_change_no_decision_are_known():
    s = found()
    assert [s[id_].against_none for id_ in ("right", "turned", "biased")] == [0, 4, 0]
    # Of the others' means (0.45, 0.69, 0.57) the first alone is on the other side.
    assert [s[id_].against_others for id_ in ("right", "turned", "biased")] == [4, 4, 0]
    told = as_text(C, list(s.values()), ordered=True)
    assert "Never decide otherwise than no principle does: right, biased." in told
    assert "Never decide otherwise than the mean of the others: biased." in told
    assert "Have no cases: untested." in told


def test_how_many_cases_a_claim_needs_follows_from_how_often_it_was_right():
    s = found()
    assert s["right"].needed == s["turned"].needed == 16  # of shares of 5/6 and 1/6, smoothed
    assert s["all"].needed > s["right"].needed


def test_a_case_of_several_turns_is_a_dialogue():
    (pair,) = pairs_of(replace(C, cases=(replace(CASES[0], dialogue=("Hi", "Yes?", "Why?")),)))
    assert pair.prompt == (user("Hi"), assistant("Yes?"), user("Why?"))
    assert (pair.first, pair.second) == ("better 0", "worse 0")


def test_without_cases_there_is_nothing_to_test():
    with pytest.raises(ValueError, match=r"has no cases; write some"):
        judge_cases(Known(), SMALL, 1, seed=0)


def test_a_label_is_the_mean_of_both_orders():
    judged = Judged(CASES[0], pairs_of(C)[0], Judgement(np.array([0.9]), np.array([0.2])))
    assert judged.label(0) == pytest.approx(0.55)
