"""Pairs in packed rows: every token of every pair is there, once, and nothing else."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.learning.packing import SIDES, first_fit, packed_pairs, packed_rows

LENGTH = 12


def read(lengths, weights):
    """Pairs as they are read, with distinct ids; 0 is an id like any other."""
    found, start = {}, 0
    for s, side in enumerate(SIDES):
        tokens = np.zeros((len(lengths), LENGTH), np.int32)
        segments = np.zeros_like(tokens)
        for row, sizes in enumerate(lengths):
            tokens[row, : sizes[s]] = np.arange(start, start + sizes[s])
            segments[row, : sizes[s]] = 1
            start += sizes[s]
        found |= {side: tokens, f"{side}_segments": segments}
    numbers = {"target": np.linspace(0, 1, len(lengths)), "weight": np.asarray(weights)}
    return found | {name: x.astype(np.float32) for name, x in numbers.items()}


SIZES = st.integers(1, LENGTH)


@given(
    st.lists(st.tuples(SIZES, SIZES, st.sampled_from([0.0, 0.5, 1.0])), min_size=4, max_size=12),
    st.sampled_from([1, 2]),
    st.sampled_from([1, 4]),
    st.integers(0, 2),
)
def test_every_dialogue_is_whole_and_found_by_its_end(pairs, parts, shards, more):
    pairs = pairs[: len(pairs) // parts * parts]
    batch = read([pair[:2] for pair in pairs], [pair[2] for pair in pairs])
    rows = packed_rows(batch, parts, shards) + more * parts * shards
    packed = packed_pairs(batch, rows, parts)
    assert packed["tokens"].shape == (rows, LENGTH)
    assert rows % (parts * shards) == 0
    for pair, weight in enumerate(batch["weight"]):
        for side in SIDES if weight else ():
            row, last = divmod(int(packed[side][pair]), LENGTH)
            row = row * parts + pair % parts  # ``split_rows`` gives a part every so many rows
            own = packed["segments"][row] == packed["segments"][row, last]
            ids = batch[side][pair][batch[f"{side}_segments"][pair] > 0]
            np.testing.assert_array_equal(packed["tokens"][row][own], ids)
            assert np.flatnonzero(own)[-1] == last
    real = sum(
        int(batch[f"{side}_segments"][pair].sum())
        for side in SIDES
        for pair in np.flatnonzero(batch["weight"])
    )
    assert (packed["segments"] > 0).sum() == real


@pytest.mark.parametrize(
    ("lengths", "room", "rows"),
    [([5, 4, 3, 2], 11, [0, 0, 1, 0]), ([11, 11, 1], 12, [0, 1, 0]), ([], 12, [])],
)
def test_a_length_is_in_the_first_row_that_has_room(lengths, room, rows):
    assert first_fit(lengths, room) == rows
