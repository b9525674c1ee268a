"""Rows come back from disk as they were written."""

from dataclasses import dataclass, replace
from typing import get_type_hints

import numpy as np
import pytest
import tensorflow_datasets as tfds
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_jax.data.records import read_records, write_records
from cai_jax.data.rows import Comparison, Revision, Sample, TrainingDialogue, TrainingPair
from cai_jax.prompts.messages import Dialogue, Message

TEXT = st.text(st.characters(codec="utf-8"))
INT = st.integers(-(2**31), 2**31 - 1)
FLOAT = st.floats(width=32, allow_nan=False)
MESSAGE = st.builds(Message, st.sampled_from(["system", "user", "assistant"]), TEXT)
VALUES = {
    str: TEXT,
    int: INT,
    float: FLOAT,
    bool: st.booleans(),
    tuple[int, ...]: st.lists(INT).map(tuple),
    tuple[float, ...]: st.lists(FLOAT).map(tuple),
    tuple[str, ...]: st.lists(TEXT).map(tuple),
    Dialogue: st.lists(MESSAGE).map(tuple),
}


def rows_of(kind):
    """Lists of rows with ids of their own."""
    fields = {name: VALUES[hint] for name, hint in get_type_hints(kind).items()}
    row = st.builds(kind, **(fields | {"id": st.text(st.characters(codec="utf-8"), min_size=1)}))
    return st.lists(row, min_size=1, max_size=4, unique_by=lambda row: row.id)


@pytest.mark.parametrize("kind", [Revision, Comparison, Sample, TrainingPair, TrainingDialogue])
def test_rows_come_back_whole(tmp_path_factory, kind):
    @settings(max_examples=12)
    @given(rows_of(kind))
    def check(rows):
        folder = tmp_path_factory.mktemp("records") / "rows"
        write_records(folder, rows, kind)
        assert read_records(folder, kind) == sorted(rows, key=lambda row: row.id)

    check()


PAIRS = [TrainingPair(f"p{i}", tuple(range(i)), (), (i,), (1,)) for i in range(4)]


def test_anything_opens_records(tmp_path):
    write_records(tmp_path / "pairs", PAIRS, TrainingPair)
    builder = tfds.builder_from_directory(tmp_path / "pairs" / "1.0.0")
    assert builder.name == "pairs"
    assert builder.info.splits["train"].num_examples == 4
    assert builder.info.features["first"].np_dtype == np.int32


def test_floats_are_float32(tmp_path):
    row = Sample("a", "m", "s", (), "", True, 0.1, 0.0)
    write_records(tmp_path / "samples", [row], Sample)
    (found,) = read_records(tmp_path / "samples", Sample)
    assert found == replace(row, score=float(np.float32(0.1)))


def test_rows_of_an_earlier_version_have_defaults(tmp_path):
    @dataclass(frozen=True)
    class Earlier:
        id: str
        text: str

    @dataclass(frozen=True)
    class Now(Earlier):
        thoughts: tuple[str, ...] = ()

    write_records(tmp_path / "rows", [Earlier("a", "x")], Earlier)
    assert read_records(tmp_path / "rows", Now) == [Now("a", "x")]


def test_rows_of_another_kind_are_refused(tmp_path):
    write_records(tmp_path / "pairs", PAIRS, TrainingPair)
    with pytest.raises(ValueError, match="pairs: its rows and a TrainingDialogue differ"):
        read_records(tmp_path / "pairs", TrainingDialogue)
    with pytest.raises(ValueError, match="empty: there are no records"):
        write_records(tmp_path / "empty", [], TrainingPair)


def test_what_cannot_be_stored_is_named(tmp_path):
    @dataclass(frozen=True)
    class Odd:
        id: str
        weights: dict[str, float]

    with pytest.raises(TypeError, match=r"Odd\.weights: dict"):
        write_records(tmp_path / "odd", [Odd("a", {})], Odd)
