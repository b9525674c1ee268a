"""Rows into batches of few shapes."""

import pytest

from cai_jax.generation.batching import buckets


def test_buckets_hold_every_row_once_and_mask_by_length():
    rows = [[0] * n for n in (3, 9, 1, 17, 8)]
    seen = []
    for bucket in buckets(rows, 2, 8, "left"):
        assert bucket.tokens_bt.shape[1] % 8 == 0
        seen += bucket.indices
        for r, i in enumerate(bucket.indices):
            assert bucket.segments_bt[r].sum() == len(rows[i])
            assert bucket.segments_bt[r, -1] == 1
    assert sorted(seen) == list(range(5))
    with pytest.raises(ValueError, match="empty"):
        list(buckets([[]], 1, 8, "left"))
