"""The demonstrations: their reader, and what their file has to be, measured on the file itself."""

import json
import re
from collections import Counter
from itertools import combinations

import pytest
from conftest import ROOT

from cai_jax.constitution.schema import load_constitution
from cai_jax.data.overlap import FEW_SHOTS, SHINGLE, THRESHOLD, Turn, equal_turns, overlap_of
from cai_jax.data.readers import (
    ChoiceDemonstration,
    RevisionDemonstration,
    read_demonstrations,
)
from cai_jax.prompts.messages import assistant, first_user_text, user
from cai_jax.stages.data import SHOWN_PROMPTS

FILE = ROOT / "datasets" / "demonstrations.jsonl"
REVISION = {
    "id": "r",
    "kind": "critique_revision",
    "prompt": " Hi ",
    "response": "Go away.",
    "critique_request": "What is wrong?",
    "critique": " It is rude.\n",
    "revision_request": "Put it right.",
    "revision": "Hello.",
    "tags": ["a"],
}
CHOICE = {
    "kind": "choice",
    "messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "And?"},
    ],
    "question": "Which is kinder?",
    "option_a": "Nothing.",
    "option_b": "How are you?",
    "answer": "B",
    "reasoning": "Option (B) asks.",
}


def write(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def test_both_kinds_are_read(tmp_path):
    assert read_demonstrations(write(tmp_path / "a.jsonl", REVISION, CHOICE)) == [
        RevisionDemonstration(
            id="r",
            messages=(user("Hi"),),
            response="Go away.",
            critique_request="What is wrong?",
            critique="It is rude.",
            revision_request="Put it right.",
            revision="Hello.",
        ),
        ChoiceDemonstration(
            id="line-2",
            messages=(user("Hi"), assistant("Hello."), user("And?")),
            question="Which is kinder?",
            option_a="Nothing.",
            option_b="How are you?",
            answer="B",
            reasoning="Option (B) asks.",
        ),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        (REVISION | {"kind": "choice"}, "of kind 'critique_revision', found 'choice'"),
        (CHOICE | {"kind": 3}, "'kind' must be a text, found 3"),
        (REVISION | {"critique": " "}, "'critique' must be a non-empty text"),
        (CHOICE | {"answer": "(B)"}, r"'answer' must be 'A' or 'B', found '\(B\)'"),
        (CHOICE | {"option_b": " Nothing."}, "nothing to choose"),
        (CHOICE | {"prompt": "Hi"}, "write a demonstration as one of: 'kind', 'prompt'"),
        ({"kind": "choice"}, "write a demonstration as one of: 'kind', 'prompt'"),
        (CHOICE | {"messages": []}, "'messages' must be a list of messages"),
    ],
)
def test_bad_rows_are_named(tmp_path, row, words):
    with pytest.raises(ValueError, match=rf"a\.jsonl, line 2: .*{words}"):
        read_demonstrations(write(tmp_path / "a.jsonl", REVISION, row))
    with pytest.raises(ValueError, match="'r' stands twice"):
        read_demonstrations(write(tmp_path / "a.jsonl", REVISION, REVISION))


def shipped(kind):
    return [d for d in read_demonstrations(FILE) if isinstance(d, kind)]


def test_there_are_enough_of_both_kinds_and_of_several_turns():
    assert len(shipped(RevisionDemonstration)) >= 300
    assert len(shipped(ChoiceDemonstration)) >= 120
    assert sum(len(d.messages) > 1 for d in read_demonstrations(FILE)) >= 40


def test_critiques_speak_of_the_reply_and_revisions_to_the_user():
    for d in shipped(RevisionDemonstration):
        said = [quote.strip(".,!?").lower() for quote in re.findall(r'"([^"]+)"', d.critique)]
        dialogue = " ".join((*(m.text for m in d.messages), d.response)).lower()
        assert all(quote in dialogue for quote in said), d.id
        assert d.response == d.revision or any(quote in d.response.lower() for quote in said), d.id
        assert len(d.critique.split()) <= 30, d.id
        assert 15 <= len(d.revision.split()) <= 45, d.id
        assert d.revision.rstrip('"').endswith("."), d.id
        assert not re.search(r"critique|my (last )?reply", d.revision, re.I), d.id


def test_what_is_fine_is_repeated_and_only_that():
    tags = {row["id"]: row["tags"] for row in map(json.loads, FILE.read_text("utf-8").splitlines())}
    rows = shipped(RevisionDemonstration)
    for d in rows:
        assert (d.revision == d.response) == ("fine" in tags[d.id]), d.id
    assert 0.15 < sum("fine" in tags[d.id] for d in rows) / len(rows) < 0.25
    assert sum("off-request" in tags[d.id] for d in rows) >= 30  # asked about another fault


def test_wordings_vary():
    rows = shipped(RevisionDemonstration)
    assert len({d.critique_request for d in rows}) >= 30
    for texts in ([d.critique for d in rows], [d.revision for d in rows]):
        starts = Counter(tuple(text.lower().split()[:3]) for text in texts)
        assert len(starts) > 0.8 * len(texts)
        assert max(starts.values()) < 0.03 * len(texts)


def test_choices_are_told_apart_by_neither_place_nor_length():
    rows = shipped(ChoiceDemonstration)
    assert Counter(d.answer for d in rows) == {"A": len(rows) // 2, "B": len(rows) // 2}
    for answer in "AB":
        of = [d for d in rows if d.answer == answer]
        longer = sum(len(right(d).split()) > len(wrong(d).split()) for d in of)
        assert 0.4 < longer / len(of) < 0.6
    assert all(f"({d.answer})" in d.reasoning.rsplit(". ", 1)[-1] for d in rows)


def right(d):
    return d.option_a if d.answer == "A" else d.option_b


def wrong(d):
    return d.option_b if d.answer == "A" else d.option_a


def test_no_topic_is_near_to_another_text_of_ours():
    turns = [Turn("training", d.id, first_user_text(d.messages)) for d in read_demonstrations(FILE)]
    runs = [{t.text.lower()[i : i + SHINGLE] for i in range(len(t.text))} for t in turns]
    assert max(len(a & b) / len(a | b) for a, b in combinations(runs, 2)) < THRESHOLD
    for path in (ROOT / "datasets").glob("*.jsonl"):
        for line in path.read_text("utf-8").splitlines() if path != FILE else ():
            turns += [Turn("evaluation", path.name, text) for text in first_turns(json.loads(line))]
    turns += [Turn("evaluation", p.id, first_user_text(p.messages)) for p in SHOWN_PROMPTS]
    for path in (ROOT / "constitutions").glob("*.yaml"):
        c = load_constitution(path)
        for shot in (*c.critique_examples, *c.choice_examples, *c.thought_examples):
            turns.append(Turn(FEW_SHOTS, path.name, shot.prompt))
    near = overlap_of(turns).near_duplicates
    assert not any("training" in pair for pair in near), near
    assert not any("training" in (a.purpose, b.purpose) for a, b in equal_turns(turns))


def first_turns(row):
    """What the user says first in a row of another file, in any of its formats."""
    said = [row[side] for side in ("prompt", "safe", "unsafe") if isinstance(row.get(side), str)]
    for turn in row.get("messages", ()):
        if turn["role"] == "user":
            return [*said, turn["content"]]
    return said
