"""Batches for the tests of this folder."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import TINY

from cai_jax.learning.packing import packed_pairs


def sft_batch(rows=4, length=12):
    tokens = jax.random.randint(jax.random.key(0), (rows, length), 0, TINY.vocab_size)
    lengths = np.array([12, 5, 9, 3][:rows])
    segments = (np.arange(length) < lengths[:, None]).astype(np.int32)
    mask = segments * (np.arange(length) >= 2)
    return {"tokens": tokens, "segments": jnp.asarray(segments), "loss_mask": jnp.asarray(mask)}


def pairs():
    """Pairs as they are read: padded on the right; the last only fills the batch."""
    ids = lambda seed: np.array(
        jax.random.randint(jax.random.key(seed), (4, 10), 0, TINY.vocab_size)
    )
    ones = np.ones((4, 10), np.int32)
    first_segments, second_segments = ones.copy(), ones.copy()
    first_segments[:, 8:], second_segments[1:, 5:] = 0, 0
    return {
        "first": ids(1),
        "second": ids(2),
        "first_segments": first_segments,
        "second_segments": second_segments,
        "target": np.array([1.0, 0.9, 0.2, 0.5], np.float32),
        "weight": np.array([1.0, 1.0, 1.0, 0.0], np.float32),
    }


def pair_batch(parts=1, **changes):
    """The same, packed."""
    return packed_pairs({**pairs(), **changes}, 8, parts)
