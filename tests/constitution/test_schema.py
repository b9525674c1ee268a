"""Constitutions: what is shipped, and how bad ones are refused."""

from pathlib import Path

import pytest
from conftest import ROOT
from minimal_constitution import MINIMAL

from cai_jax.constitution.schema import ConstitutionError, load_constitution

FILES = sorted((ROOT / "constitutions").glob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_shipped_constitutions_are_complete(path: Path):
    c = load_constitution(path)
    assert c.name == path.stem
    assert len(c.critique_revision) >= 16
    assert len(c.feedback) >= 16
    assert c.critique_examples
    for examples in (c.choice_examples, c.thought_examples):
        answers = [e.answer for e in examples]
        assert answers.count("A") == answers.count("B") > 0
    assert all(e.reasoning for e in c.thought_examples)
    assert all(p.author and p.tags for p in (*c.critique_revision, *c.feedback))


def test_shipped_constitutions_differ():
    assert len(FILES) >= 2
    assert len({load_constitution(path).content_hash() for path in FILES}) == len(FILES)


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


def test_a_weight_is_one_unless_it_is_given(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(MINIMAL.replace("    question", "    weight: 2.5\n    question", 1), "utf-8")
    found = load_constitution(path)
    assert (found.critique_revision[0].weight, found.feedback[0].weight) == (1.0, 2.5)
    path.write_text(MINIMAL, encoding="utf-8")
    assert load_constitution(path).content_hash() != found.content_hash()  # draws differ


def test_missing_empty_and_binary_files(tmp_path):
    with pytest.raises(ConstitutionError, match="constitutions/"):
        load_constitution(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("", encoding="utf-8")
    with pytest.raises(ConstitutionError, match="mapping"):
        load_constitution(tmp_path / "empty.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(ConstitutionError, match="UTF-8"):
        load_constitution(tmp_path / "binary.yaml")
