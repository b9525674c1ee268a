"""Constitutions: what is shipped, and how bad ones are refused."""

import json
import re
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from minimal_constitution import MINIMAL

from cai_jax.constitution.schema import (
    ConstitutionError,
    authors_of,
    load_constitution,
    locate_constitution,
)
from cai_jax.data.jsonl import jsonl_rows
from cai_jax.data.overlap import FEW_SHOTS, Turn, overlap_of
from cai_jax.data.readers import read_prompt
from cai_jax.evaluation.cases import pairs_of
from cai_jax.feedback.baselines import baselines
from cai_jax.prompts.few_shots import topic_words
from cai_jax.prompts.messages import first_user_text

FILES = sorted((ROOT / "constitutions").glob("*.yaml"))
HARMLESS, HARMLESS_10 = (
    load_constitution(ROOT / "constitutions" / f"{name}.yaml")
    for name in ("harmless", "harmless_10")
)
GENERAL = "general"
_HARMS = """
violence weapons crime fraud dishonesty malware privacy hate harassment self-harm drugs sexual
extremism misinformation false-premise dangerous-advice manipulation cruelty animals child-safety
about-itself jailbreak
"""
HARMS = _HARMS.split()  # tags of prompts and principles; constitutions/README.md lists them


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shipped_constitutions_are_complete(path: Path):
    c = load_constitution(path)
    assert c.name == path.stem
    for principles in (c.critique_revision, c.feedback):
        assert len(principles) == 10 if path.stem.endswith("_10") else len(principles) >= 16
    assert c.critique_examples
    for examples in (c.choice_examples, c.thought_examples):
        answers = [e.answer for e in examples]
        assert answers.count("A") == answers.count("B") > 0
    assert all(e.reasoning for e in c.thought_examples)
    assert all(p.author and p.tags for p in (*c.critique_revision, *c.feedback))


def test_shipped_constitutions_differ():
    assert len(FILES) >= 2
    assert len({load_constitution(path).content_hash() for path in FILES}) == len(FILES)


@pytest.mark.parametrize("part", ["critique_revision", "feedback"])
def test_half_of_the_draws_are_general(part):
    principles = getattr(HARMLESS, part)
    general = [GENERAL in p.tags for p in principles]
    assert general == sorted(general, reverse=True)  # the general ones stand first
    assert np.average(general, weights=[p.weight for p in principles]) == pytest.approx(0.5, 0.02)
    assert sum(GENERAL in p.tags for p in getattr(HARMLESS_10, part)) > 5


@pytest.mark.parametrize("part", ["critique_revision", "feedback"])
def test_every_kind_of_harm_has_a_principle(part):
    tags = {tag for p in getattr(HARMLESS, part) for tag in p.tags}
    assert tags == {GENERAL, "helpfulness", "tone", *HARMS}
    assert len([p for p in HARMLESS.feedback if "helpfulness" in p.tags]) >= 3  # of win rates


def test_contrasts_have_frames_of_their_own():
    """One frame for all would add up to one principle, whatever clause follows."""
    opening = lambda text: " ".join(text.split()[:5])
    for c in (HARMLESS, HARMLESS_10):
        openings = {opening(p.principle) for p in c.feedback}
        assert len(openings) == len(c.feedback)
        assert {opening(p.opposite) for p in c.feedback}.isdisjoint(
            {p.principle for p in c.feedback}
        )
        for p in c.feedback:  # a reply is likelier under one for what it does, not for its length
            assert abs(len(p.principle.split()) - len(p.opposite.split())) <= 3


def test_few_shots_show_that_a_reply_may_stand():
    kept = [e for e in HARMLESS.critique_examples if e.revision == e.response]
    assert (len(HARMLESS.critique_examples), len(kept)) == (5, 1)
    assert (len(HARMLESS.choice_examples), len(HARMLESS.thought_examples)) == (6, 4)
    requests = {(p.critique_request, p.revision_request) for p in HARMLESS.critique_revision}
    asked = {(e.critique_request, e.revision_request) for e in HARMLESS.critique_examples}
    assert asked <= requests  # what is asked there is what models are asked
    for field in ("critique_examples", "choice_examples", "thought_examples"):
        assert getattr(HARMLESS, field) == getattr(HARMLESS_10, field)


@pytest.mark.parametrize("c", [HARMLESS, HARMLESS_10], ids=lambda c: c.name)
def test_every_revision_request_lets_a_harmless_reply_stand(c):
    stands = re.compile(r"^(If|An?) .*(repeat|again|once more|same|chang|keep|as it was|stays)")
    for p in c.critique_revision:
        *_, last = re.split(r"(?<=\.) ", p.revision_request)
        assert stands.search(last), p.id


def test_few_shots_are_near_no_row_of_the_datasets():
    files = sorted((ROOT / "datasets").glob("*.jsonl"))
    rows = [(file.name, row) for file in files for row in jsonl_rows(file)]
    said = [
        Turn("audit", f"{name} {row.id}", row.fields[field])
        for name, row in rows
        for field in ("prompt", "safe", "unsafe")
        if isinstance(row.fields.get(field), str)
    ]
    said += [
        Turn("audit", f"{name} {row.id}", first_user_text(read_prompt(row).messages))
        for name, row in rows
        if "messages" in row.fields
    ]
    assert len(said) > 1000
    shots = (*HARMLESS.critique_examples, *HARMLESS.choice_examples, *HARMLESS.thought_examples)
    cases = [Turn(FEW_SHOTS, case.id, case.dialogue[0]) for case in HARMLESS.cases]
    found = overlap_of([*said, *cases, *(Turn(FEW_SHOTS, e.id, e.prompt) for e in shots)])
    assert not found.near_duplicates, found.worst
    for e in shots:  # in other words, on the same thing
        topic = topic_words(e.prompt)
        for turn in said:
            other = topic_words(turn.text)
            assert len(topic & other) < 0.5 * max(3, len(topic | other)), (e.id, turn.where)


def test_cases_test_every_principle_and_no_surface_tells():
    """A bag of words or the length must not know which reply is better; the bar is 0.65."""
    counts = Counter(id_ for case in HARMLESS.cases for id_ in case.principles)
    assert min(counts[p.id] for p in HARMLESS.feedback) >= 3
    assert len(HARMLESS.cases) >= 60
    pairs = pairs_of(HARMLESS)
    surface = baselines(pairs, [True] * len(pairs))
    assert surface.openings == len(pairs)
    assert surface.bag_of_words <= 0.65
    assert surface.length <= 0.65
    assert 0.4 < np.mean([len(c.better) > len(c.worse) for c in HARMLESS.cases]) < 0.6


def test_hash_covers_texts_and_not_comments(tmp_path):
    original = FILES[0].read_text(encoding="utf-8")
    commented, changed = tmp_path / "a.yaml", tmp_path / "b.yaml"
    commented.write_text("# a remark\n" + original, encoding="utf-8")
    changed.write_text(original.replace("harm", "damage", 1), encoding="utf-8")
    first = load_constitution(FILES[0]).content_hash()
    assert load_constitution(commented).content_hash() == first
    assert load_constitution(changed).content_hash() != first


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("    revision_request: Make it kind.\n", "", ["line 6", "revision_request", "add it"]),
        ("opposite: You are", "oposite: You are", ["line 17", "oposite", "known"]),
        ("tags: [tone]\n    critique", "tags: tone\n    critique", ["line 8", "tags", "list"]),
        ("id: kinder", "id: kind", ["line 12", "taken by line 6"]),
        ("answer: A", "answer: C", ["line 20", "answer", "A or B"]),
        ("question: Which is kinder?", "question: ''", ["line 15", "question", "empty"]),
        ("authors: [us]", "authors: [us", ["not valid YAML", "line"]),
        ("author: us", "author: []", ["line 7", "critique_revision[0].author", "at least one"]),
        ("author: us", "author: {a: b}", ["line 7", "must be a text"]),
        ("name: tiny", "- tiny", ["not valid YAML"]),
        *(
            (
                "tags: [tone]\n    critique",
                f"tags: [tone]\n    weight: {weight}\n    critique",
                ["line 9", "critique_revision[0].weight", "a number from 0.001", "0.5 or 2"],
            )
            for weight in ("0", "-1", "often", "true", ".nan", ".inf", "1e9", "[2]", "''")
        ),
        (
            "answer: A",
            "answer: A, weight: 2",
            ["line 20", "multiple_choice[0]: weight", "is not a field"],
        ),
        ('version: "1"\n', 'version: "1"\nversion: "2"\n', ["line 3", "appears twice"]),
        (
            "You are kind.",
            '"You are \\ud83d kind."',
            ["line 16: feedback[0].principle has half of a surrogate pair (U+D83D); write the"],
        ),
        ("us]", '"u\\x07s"]', ["line 4: authors[0] has the control character U+0007; take it out"]),
        ("tags: [tone]", '"t\\ud83d": 1', ["line 8", "a field's name has half of a surrogate"]),
        ("You are kind.", '"\\u200b"', ["line 16: feedback[0].principle is empty; write a text"]),
        ("id: kind\n", 'id: "k\\0x"\n', ["line 6: critique_revision[0].id has the control char"]),
        ("id: kind\n", 'id: "k\\tx"\n', ["line 6", "id has U+0009, which nobody sees; take it"]),
        ("id: kind\n", "id: k\u200bind\n", ["line 6", "id has U+200B, which nobody sees; take it"]),
        ("id: kind\n", 'id: " kind"\n', ["line 6", "id begins or ends with white space; take it"]),
        ("option_b: b", "option_b: a", ["line 20", "[0].option_b is option_a, so that no answer"]),
    ],
)
def test_bad_files_name_line_field_and_remedy(tmp_path, old, new, words):
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    assert load_constitution(path).name == "tiny"
    assert old in MINIMAL
    path.write_text(MINIMAL.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(ConstitutionError) as error:
        load_constitution(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_ids_that_look_alike_are_one(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(
        MINIMAL.replace("id: kinder", "id: ñ").replace("id: one", "id: n\u0303"), "utf-8"
    )
    with pytest.raises(ConstitutionError, match=r"line 20: .* is taken by line 12; choose another"):
        load_constitution(path)


def test_texts_keep_their_layout_and_the_joiners_of_their_script(tmp_path):
    path = tmp_path / "tiny.yaml"
    said = "\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645 \U0001f468\u200d\U0001f469 a\n\tb"
    path.write_text(MINIMAL.replace("You are kind.", json.dumps(said, ensure_ascii=False)), "utf-8")
    assert load_constitution(path).feedback[0].principle == said


def test_names_of_any_length_are_compared_in_time(tmp_path):
    """Of the processor, since machines are busy."""
    cases = "cases:\n  - {id: c, dialogue: d, better: e, worse: f, principles: [%s]}\n"
    path = tmp_path / "tiny.yaml"
    long = MINIMAL.replace("id: kinder", f"id: {'ab' * 5000}") + cases % ("ba" * 5000)
    path.write_text(long, encoding="utf-8")
    started = time.process_time()
    with pytest.raises(ConstitutionError, match="no feedback principle; the nearest is 'abab"):
        load_constitution(path)
    assert time.process_time() - started < 1


def test_a_weight_is_one_unless_it_is_given(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL.replace("    question", "    weight: 2.5\n    question", 1), "utf-8")
    found = load_constitution(path)
    assert (found.critique_revision[0].weight, found.feedback[0].weight) == (1.0, 2.5)
    path.write_text(MINIMAL, encoding="utf-8")
    assert load_constitution(path).content_hash() != found.content_hash()  # draws differ


def test_a_principle_may_have_several_authors(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    one = load_constitution(path)
    path.write_text(MINIMAL.replace("author: us", "author: [us]"), encoding="utf-8")
    assert load_constitution(path).content_hash() == one.content_hash()
    path.write_text(MINIMAL.replace("author: us", "author: [us, them]", 1), encoding="utf-8")
    two = load_constitution(path)
    assert authors_of(two.critique_revision[0]) == ("us", "them")
    assert authors_of(two.feedback[0]) == ("us",)
    assert two.content_hash() != one.content_hash()


def test_missing_empty_and_binary_files(tmp_path):
    with pytest.raises(ConstitutionError, match=r"none\.yaml: no such file"):
        load_constitution(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConstitutionError, match="mapping"):
        load_constitution(tmp_path / "empty.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ConstitutionError, match="UTF-8"):
        load_constitution(tmp_path / "binary.yaml")


def test_every_field_knows_its_line(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    located = locate_constitution(path)
    assert located.constitution == load_constitution(path)
    texts = MINIMAL.splitlines()
    for (id_, field), line in located.lines.items():
        if id_ or field in ("name", "version", "description", "authors"):  # a list is below its key
            assert f"{field}:" in texts[line - 1], (id_, field)
    assert located.lines["", "authors"] == 4
    assert located.lines["kinder", "opposite"] == 17
    assert located.lines["one", "answer"] == 20
