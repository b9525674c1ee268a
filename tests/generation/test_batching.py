"""Rows into batches of few shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.generation.batching import buckets, pad_rows, widths

LENGTHS = st.lists(st.integers(1, 40), max_size=20)


@given(LENGTHS, st.integers(1, 6), st.integers(1, 16), st.sampled_from(["left", "right"]))
def test_buckets_hold_every_row_once_and_mask_by_length(lengths, batch_size, multiple, side):
    rows, seen, sizes = [[0] * n for n in lengths], [], []
    for bucket in buckets(rows, batch_size, multiple, side):
        assert bucket.tokens_bt.shape == bucket.segments_bt.shape
        assert len(bucket.tokens_bt) == batch_size
        sizes.append(bucket.tokens_bt.shape[1])
        seen += bucket.indices
        for r, i in enumerate(bucket.indices):
            assert bucket.segments_bt[r].sum() == len(rows[i])
            edge = slice(-len(rows[i]), None) if side == "left" else slice(0, len(rows[i]))
            assert bucket.segments_bt[r, edge].all()
    assert sorted(seen) == list(range(len(rows)))
    assert sizes == sorted(sizes, reverse=True)  # what may not fit comes first
    assert set(sizes) <= set(widths(max(lengths, default=1), multiple))


def test_an_empty_row_is_refused():
    with pytest.raises(ValueError, match="empty"):
        list(buckets([[]], 1, 8, "left"))


@given(st.integers(1, 100), st.integers(1, 32))
def test_widths_are_the_multiples_that_rows_need(longest, multiple):
    expected = {-(-length // multiple) * multiple for length in range(1, longest + 1)}
    assert widths(longest, multiple) == sorted(expected, reverse=True)


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1), st.booleans())
def test_padding_is_told_from_tokens_by_length_alone(rows, left):
    tokens, segments = pad_rows(rows, 6, "left" if left else "right")
    assert [list(t[s > 0]) for t, s in zip(tokens, segments, strict=True)] == rows
    assert tokens.dtype == segments.dtype == np.int32
