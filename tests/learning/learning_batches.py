"""Batches for the tests of this folder."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import TINY


def sft_batch(rows=4, length=12):
    tokens = jax.random.randint(jax.random.key(0), (rows, length), 0, TINY.vocab_size)
    lengths = np.array([12, 5, 9, 3][:rows])
    segments = (np.arange(length) < lengths[:, None]).astype(np.int32)
    mask = segments * (np.arange(length) >= 2)
    return {"tokens": tokens, "segments": jnp.asarray(segments), "loss_mask": jnp.asarray(mask)}


def pair_batch():
    first = jax.random.randint(jax.random.key(1), (4, 10), 0, TINY.vocab_size)
    second = jax.random.randint(jax.random.key(2), (4, 10), 0, TINY.vocab_size)
    ones = jnp.ones((4, 10), jnp.int32)
    return {
        "first": first,
        "second": second,
        "first_segments": ones.at[:, 8:].set(0),
        "second_segments": ones.at[1:, 5:].set(0),
        "target": jnp.array([1.0, 0.9, 0.2, 0.5]),
        "weight": jnp.array([1.0, 1.0, 1.0, 0.0]),
    }
