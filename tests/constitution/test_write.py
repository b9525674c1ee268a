"""What is written as a file is read as the same constitution."""

from dataclasses import replace

import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.constitution.schema import Case, load_constitution
from cai_jax.constitution.write import to_yaml

FILES = sorted((ROOT / "constitutions").rglob("*.yaml"))
SMALL = load_constitution(ROOT / "constitutions" / "groups" / "teachers.yaml")
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]) | st.just("\n"))
ODD = st.one_of(
    TEXTS, st.sampled_from(["no", "1.0", "null", "- a", "a: b", "# c", "x " * 80 + "\n z"])
)


def again(constitution, path):
    path.write_text(to_yaml(constitution), encoding="utf-8")
    return load_constitution(path)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_shipped_constitutions_come_back(file, tmp_path):
    constitution = load_constitution(file)
    assert again(constitution, tmp_path / "again.yaml") == constitution


@given(ODD, st.lists(ODD, min_size=2, max_size=3), st.floats(1e-3, 1e3))
def test_whatever_the_texts_are_they_come_back(tmp_path_factory, text, authors, weight):
    text, *authors = (t.strip() or "x" for t in (text, *authors))
    (first, *_) = SMALL.feedback
    odd = replace(first, question=text, author=tuple(authors), tags=(text,), weight=weight)
    constitution = replace(SMALL, description=text, feedback=(odd,))
    path = tmp_path_factory.getbasetemp() / "odd.yaml"
    assert again(constitution, path) == constitution


def test_cases_come_back(tmp_path):
    ids = tuple(p.id for p in SMALL.feedback)
    cases = (
        Case("one", ("How?",), "So.", "No.", ids[:1]),
        Case("many", ("How?", "Like this.", "And then?"), "Rest: a\nb", "x " * 60 + "x", ids),
    )
    constitution = replace(SMALL, cases=cases)
    assert again(constitution, tmp_path / "again.yaml") == constitution
    assert constitution.content_hash() == SMALL.content_hash()


def test_files_are_as_people_write_them():
    text = to_yaml(SMALL)
    assert "  - id: hint-first\n    author: Henrik Aalto\n    tags: [helpfulness]\n" in text
    assert "    question: >-\n      After which" in text
    assert "weight" not in text
    weighted = replace(SMALL, feedback=tuple(replace(p, weight=2.0) for p in SMALL.feedback))
    assert "    weight: 2\n" in to_yaml(weighted)
    assert "reasoning" not in text
    assert max(map(len, text.splitlines())) <= 110
