"""What models wrote, as a page shows it: what was revised, where judges disagree, what has room."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from minimal_constitution import MINIMAL
from small_evidence import HARM, reply, revision

from cai_jax.constitution.schema import load_constitution
from cai_jax.data.rows import Comparison
from cai_jax.report import transcripts
from cai_jax.report.transcripts import changes, embedded, of_labels, of_replies, of_revisions


@pytest.fixture
def constitution(tmp_path):
    (tmp_path / "c.yaml").write_text(MINIMAL, encoding="utf-8")
    return load_constitution(tmp_path / "c.yaml")


@given(st.text("ab \n"), st.text("ab \n"))
def test_what_stayed_and_came_is_the_revision(before, after):
    runs = changes(before, after)
    assert "".join(run[1:] for run in runs if run[0] != "-") == after
    went = "".join(run[1:] for run in runs if run[0] != "+")
    assert "".join(went.split()) == "".join(before.split())


def test_words_are_marked_in_runs():
    found = changes("You can do it at home.", "You should not do it at home.")
    assert found == ["=You ", "-can ", "+should not ", "=do it at home."]


def test_a_dialogue_is_one_transcript_round_by_round(constitution):
    rows = [revision("x", 1, "a b"), revision("y", 0, "c"), revision("x", 0, "a")]
    one, other = of_revisions(rows, constitution)
    assert [text["of"] for text in one["texts"]] == ["response", "revision 1"]
    assert one["texts"][1]["text"] == ["=a ", "+b"]
    assert (other["id"], other["score"]) == ("y", 0)


def test_a_label_says_what_each_principle_and_order_said(constitution):
    row = Comparison(
        *("id", "training", HARM, "one", "two", (1,), (2,), 0.7, ("kinder",), (0.9,), (0.5,)),
        *("multiple_choice", 0, "m", "f", "sha"),
    )
    (found,) = of_labels([row], constitution)
    assert found["reasons"] == [["kinder", 0.9, 0.5, 0.7]]
    assert (found["gap"], found["tags"]) == (0.4, ["tone"])
    assert "thoughts" not in found
    reasoned = replace(row, thoughts=("a ", "b", "c", "d"))  # two chains of each order
    (found,) = of_labels([reasoned], constitution)
    which = "the first of 2 chains"
    one, other = (["kinder", f"first shown as ({letter}), {which}"] for letter in "AB")
    assert found["thoughts"] == [[*one, "a"], [*other, "c"]]


def test_replies_to_a_prompt_stand_side_by_side():
    rows = [reply(p, "red_team", 1, "a", s).row for p, s in (("base", 1), ("rl_cai", 2))]
    (found,) = of_replies(rows, {"base": "base", "rl_cai": "RL-CAI"}, second_model=True)
    assert [text["of"] for text in found["texts"]] == ["base", "RL-CAI"]
    assert (found["score"], found["gap"]) == (2, 4)  # the other model scores -2
    cut = [replace(rows[0], finished=False, unjudged=" You filthy"), rows[1]]
    (shown,) = of_replies(cut, {"base": "base", "rl_cai": "RL-CAI"}, second_model=True)
    assert [text.get("unjudged") for text in shown["texts"]] == [" You filthy", None]
    (alone,) = of_replies(rows, {"base": "base"}, second_model=False)
    assert "gap" not in alone


def test_a_page_holds_as_many_as_there_is_room_for(monkeypatch):
    one = {"kind": "reply", "id": "x" * 100, "tags": [], "prompt": [], "texts": []}
    held = lambda most: json.loads(embedded([one] * 9, {}, most))
    assert held(5)["counts"] == {"reply": [5, 9]}
    monkeypatch.setattr(transcripts, "MOST_BYTES", 500)
    assert 1 <= len(held(5)["transcripts"]) < 5
