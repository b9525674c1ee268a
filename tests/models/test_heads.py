"""Decoders with a scalar head."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import nnx

from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_preference_score_reads_the_last_real_token(side):
    model = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jax.random.normal(jax.random.key(3), (TINY.d_model,)))
    ids = np.arange(4, 13)
    hidden = Decoder.hidden(model.decoder, jnp.asarray(ids[None]), jnp.ones((1, 9), jnp.int32))
    expected = np.asarray(hidden[0, -1]) @ np.asarray(model.head.kernel[...])
    start = {"left": 5, "right": 0, "both": 2}[side]
    tokens, segments = np.zeros((1, 14), np.int32), np.zeros((1, 14), np.int32)
    tokens[0, start : start + 9], segments[0, start : start + 9] = ids, 1
    score = model(jnp.asarray(tokens), jnp.asarray(segments))
    np.testing.assert_allclose(score[0], expected, rtol=1e-4)
