"""What principles changed, decided and shaped, on evidence that can be worked out by hand."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from small_evidence import HARM, PLAN, CountingReward, evidence, means, replies
from test_attribution import comparison

from cai_jax.data.readers import LabelledPair
from cai_jax.evaluation.attribution import PEOPLE
from cai_jax.evaluation.principles import (
    FEEDBACK_PRINCIPLES,
    REVISION_PRINCIPLES,
    words_changed,
)
from cai_jax.prompts.messages import user
from cai_jax.rl.reward import Objective

NAMED = replace(PLAN, critique_principles=("p", "q"), feedback_principles=("a", "b", "c"))


def test_words_changed():
    assert words_changed("a b c", "a b c") == 0
    assert words_changed("a b", "c d") == 1
    assert words_changed("a b c", "a x c") == pytest.approx(1 / 3)


def test_revisions_are_measured_by_their_principle():
    found = {(m.measure, m.subject): m for m in REVISION_PRINCIPLES.evaluate(evidence(plan=NAMED))}
    changed = found["words_changed", "p"]
    assert (changed.n, changed.units) == (4, 2)  # revisions of two prompts, all under p
    assert changed.mean == pytest.approx((1 / 3 + 1 / 5 + 0 + 1 / 4) / 4)
    assert found["score_change", "p"].mean == pytest.approx((1 + 1 + 0 + 2) / 4)
    assert found["drawn", "p"].mean == 1
    assert {subject for _, subject in found} == {"p"}  # q was not drawn


LABELS = [
    comparison("1", HARM, {"a": 0.9, "b": 0.3}),  # b alone would say the second
    comparison("2", HARM, {"a": 0.7, "b": 0.6}),  # b says the same
    comparison("3", (user("harm 3"),), {"b": 0.2}),  # nothing is left without b
]


def test_labels_are_measured_by_their_principle():
    given = evidence(plan=NAMED, comparisons={"": LABELS}, labels="shuffled")
    found = {(m.measure, m.subject): m for m in FEEDBACK_PRINCIPLES.evaluate(given)}
    assert found["strength", "a"].mean == pytest.approx(0.3)
    assert found["strength", "b"].mean == pytest.approx((0.2 + 0.1 + 0.3) / 3)
    assert (found["agreement", "b"].mean, found["agreement", "b"].n) == (0.5, 2)
    assert found["decided", "a"].mean == 0.5
    assert found["decided", "b"].mean == pytest.approx(1 / 3)
    # Labels that training shuffled are no principle's: nothing is said of the preference model.
    assert found["drawn", "a"].mean == pytest.approx(2 / 3)
    assert {measure for measure, _ in found} == {"drawn", "strength", "agreement", "decided"}


class WordFeatures(CountingReward):
    """Texts for ids; features of a reply: how many words it has, and whether it says "kind"."""

    def __init__(self):
        super().__init__(SimpleNamespace(prompt_ids=lambda m: 0, judged_ids=lambda ids, text: text))
        self.scorer = self

    def preference_features(self, rows, name):
        return np.array([[len(row.split()), "kind" in row] for row in rows], np.float32)


def test_the_lead_is_owed_to_whose_labels_like_it():
    """Principle a likes words, b dislikes kindness, and what base lacks is words.

    As b does not care for words, labels would be surer of them without it.
    """
    rows = []
    for n in range(24):
        first = "a b c" if n % 2 else "a"
        second = "a b kind" if n % 3 == 0 else "b b"
        words, kind = len(first.split()) - len(second.split()), -("kind" in second)
        labels = {"a": 0.5 + 0.15 * words, "b": 0.5 + 0.3 * kind}
        row = comparison(str(n), (user(f"harm {n // 2}"),), labels)
        rows.append(replace(row, first=first, second=second))
    asked = (HARM, (user("harm 2"),))
    known = [LabelledPair(str(n), prompt, "a b", "a") for n, prompt in enumerate(asked)]
    pairs = {"harmlessness": known, "helpfulness": []}
    given = evidence(plan=NAMED, comparisons={"": rows}, pairs=pairs)
    given = replace(given, tools=replace(given.tools, reward=Objective({"": WordFeatures()})))
    texts = {"base": ["a"] * 5, "rl_cai": ["a b"] * 5}
    given = replace(given, replies={p: replies(p, t, [0, 0, 0, 0, 0]) for p, t in texts.items()})
    found = means(FEEDBACK_PRINCIPLES.evaluate(given))
    lead = found["lead", "all labels", ""]
    assert found["lead_lost", "a", ""] > 0.5 * lead > 0 > found["lead_lost", "b", ""]
    assert found["follows", "all labels", ""] == 0  # the scores of these samples are all alike
    assert ("lead_lost", PEOPLE, "") not in found  # people labelled nothing
    lost = next(
        m
        for m in FEEDBACK_PRINCIPLES.evaluate(given)
        if (m.measure, m.subject) == ("accuracy_lost", "a")
    )
    assert lost.detectable is not None  # a paired difference, not a share of coins
    assert -1 <= lost.low <= lost.mean <= lost.high <= 1
