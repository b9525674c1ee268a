"""Rows into batches of few shapes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.generation.batching import check_filled, doubled, pad_rows, widths
from cai_jax.generation.sharing import laid_out, pack_whole

LENGTHS = st.lists(st.integers(1, 40), max_size=20)


@given(LENGTHS, st.integers(1, 16), st.integers(1, 5))
def test_packs_hold_every_row_once_the_longest_first(lengths, room, most):
    rows = [[i + 1] * n for i, n in enumerate(lengths)]
    packs = pack_whole(rows, range(len(rows)), room, most)
    assert sorted(i for pack in packs for i in pack.rows) == list(range(len(rows)))
    longest = [len(pack.rests[0]) for pack in packs]
    assert longest == sorted(longest, reverse=True)  # what may not fit in memory comes first
    for pack, first in zip(packs, longest, strict=True):
        assert len(pack.rows) <= most
        assert pack.tokens <= doubled(first, room)
        tokens, segments, ends = laid_out([pack], doubled(first, room), most)
        for r, (i, end) in enumerate(zip(pack.rows, ends[0], strict=False)):
            assert list(tokens[0, end + 1 - len(rows[i]) : end + 1]) == rows[i]
            assert (segments[0] == r + 1).sum() == len(rows[i])


def test_what_fits_shares_a_pack():
    rows = [[1] * n for n in (3, 9, 5, 12, 4, 7, 1, 20)]
    packs = pack_whole(rows, range(len(rows)), 16, 8)
    assert [sorted(map(len, pack.rests)) for pack in packs] == [[12, 20], [7, 9], [1, 3, 4, 5]]


def test_an_empty_row_is_refused():
    with pytest.raises(ValueError, match="empty"):
        check_filled([[1], []])


@given(st.integers(1, 100), st.integers(1, 32))
def test_widths_are_the_multiples_that_rows_need(longest, multiple):
    expected = {-(-length // multiple) * multiple for length in range(1, longest + 1)}
    assert widths(longest, multiple) == sorted(expected, reverse=True)


@given(st.lists(st.lists(st.integers(0, 9), max_size=6), min_size=1), st.booleans())
def test_padding_is_told_from_tokens_by_length_alone(rows, left):
    tokens, segments = pad_rows(rows, 6, "left" if left else "right")
    assert [list(t[s > 0]) for t, s in zip(tokens, segments, strict=True)] == rows
    assert tokens.dtype == segments.dtype == np.int32
