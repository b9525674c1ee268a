"""Differences by text: each is shown, and nothing else."""

import re
import time
from dataclasses import fields, replace

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.constitution.diff import ALIKE, as_text, differences, word_changes
from cai_jax.constitution.schema import Case, load_constitution

OLD = load_constitution(ROOT / "constitutions" / "harmless_10.yaml")
PARTS = (
    "critique_revision",
    "feedback",
    "critique_examples",
    "choice_examples",
    "thought_examples",
)
WORDS = st.lists(st.sampled_from(["a", "red", "fox", "old"]), max_size=9).map(" ".join)


def edited(part, at=0, **change):
    entries = list(getattr(OLD, part))
    entries[at] = replace(entries[at], **change)
    return replace(OLD, **{part: tuple(entries)})


def test_equal_constitutions_differ_in_nothing():
    assert differences(OLD, OLD) == []
    assert as_text([]) == ALIKE == "nothing that a model reads differs"


def test_words_and_weights_that_change_are_shown():
    (p, *_) = OLD.feedback
    new = edited("feedback", question=p.question.replace("less harmful", "safer"), weight=2.5)
    (found,) = differences(OLD, new)
    assert (found.part, found.kind, found.id) == ("feedback", "changed", p.id)
    assert "[-less harmful-] {+safer+}" in found.texts["question"]
    assert found.texts["weight"] == "[-1-] {+2.5+}"
    lines = as_text([found]).splitlines()
    assert lines[:2] == ["feedback", f"  ~ {p.id}"]
    assert len(lines) == 4


def test_added_and_removed_entries_are_shown_whole():
    new = replace(OLD, feedback=OLD.feedback[1:], choice_examples=OLD.choice_examples[1:])
    for found, kind in ((differences(OLD, new), "removed"), (differences(new, OLD), "added")):
        assert [(d.part, d.kind) for d in found] == [
            ("feedback", kind),
            ("few_shots.multiple_choice", kind),
        ]
        assert found[0].texts["question"] == OLD.feedback[0].question
        assert found[1].texts["option_a"] == OLD.choice_examples[0].option_a


def test_an_entry_with_another_id_alone_is_renamed():
    (found,) = differences(OLD, edited("feedback", 3, id="another"))
    assert found.kind == "changed"
    assert found.texts == {"id": f"[-{OLD.feedback[3].id}-] {{+another+}}"}


def test_another_order_draws_others():
    (found,) = differences(OLD, replace(OLD, feedback=OLD.feedback[::-1]))
    assert (found.part, found.id) == ("feedback", "order")


def test_cases_are_nothing_that_a_model_reads():
    case = Case("one", ("How?", "So.", "And?"), "Rest.", "Run.", (OLD.feedback[0].id,))
    found = differences(OLD, replace(OLD, cases=(case,)))
    assert [(d.part, d.kind, d.id) for d in found] == [("cases", "added", "one")]
    assert as_text(found).splitlines()[0] == ALIKE
    assert found[0].texts["dialogue"] == "How?, So., And?"


def test_names_are_nothing_that_a_model_reads():
    found = differences(OLD, replace(OLD, name="other", authors=("Ann", "Bo")))
    assert as_text(found).splitlines()[0] == ALIKE
    assert "[-harmless_10-] {+other+}" in as_text(found)


@pytest.mark.parametrize("part", PARTS)
def test_whatever_changes_the_hash_is_shown(part):
    for field in fields(getattr(OLD, part)[0]):
        value = getattr(getattr(OLD, part)[0], field.name)
        other = 2.0 if field.name == "weight" else ("x",) if field.name == "tags" else f"{value}x"
        (found,) = differences(OLD, edited(part, **{field.name: other}))
        assert set(found.texts) == {field.name}


@given(WORDS, WORDS)
def test_marked_words_give_both_texts_back(old, new):
    marked = word_changes(old, new).split()
    was, is_, inside = [], [], ""
    for word in marked:
        inside = {"[-": "-", "{+": "+"}.get(word[:2], inside)
        bare = word.removeprefix("[-").removeprefix("{+").removesuffix("-]").removesuffix("+}")
        was += [bare] if inside != "+" else []
        is_ += [bare] if inside != "-" else []
        inside = "" if word[-2:] in ("-]", "+}") else inside
    assert (was, is_) == (old.split(), new.split())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("a b " * 5000, "b a a " * 3000),
        ("very " * 20_000, "very " * 19_999 + "much"),
        (
            " ".join(map(str, range(20_000))),
            " ".join(str(i + i % 2 * 10**6) for i in range(20_000)),
        ),
    ],
)
def test_words_of_any_text_are_compared_in_time(old, new):
    """Of the processor, since machines are busy; difflib alone takes minutes."""
    started = time.process_time()
    shown = word_changes(old, new)
    assert time.process_time() - started < 1
    assert old.split() == [w.strip("[-]") for w in re.sub(r"\{\+.*?\+\}", "", shown).split()]
    assert new.split() == [w.strip("{+}") for w in re.sub(r"\[-.*?-\]", "", shown).split()]


def test_what_is_equal_around_a_change_is_kept_in_texts_of_any_length():
    assert word_changes("so " * 3000 + "red fox", "so " * 3000 + "old fox").endswith(
        " so [-red-] {+old+} fox"
    )
