"""Log-probabilities against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, tiny_decoder
from flax import nnx
from scipy.special import log_softmax

from cai_jax.learning.logprobs import logprobs_of_hidden
from cai_jax.learning.losses import sft_loss_sum


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("length", [2, 23, 65, 130])
def test_token_logprobs_match_numpy(decoder, temperature, length):
    tokens = jax.random.randint(jax.random.key(length), (2, length), 0, TINY.vocab_size)
    segments = jnp.ones_like(tokens).at[0, : length // 3].set(0)
    hidden = decoder.hidden(tokens, segments)
    out = logprobs_of_hidden(decoder, hidden, tokens, segments, temperature)
    logits = np.asarray(decoder.logits(hidden), np.float64)
    table = log_softmax(logits / temperature, axis=-1)
    for b in range(2):
        for t in range(length):
            predicted = t > 0 and segments[b, t] > 0 and segments[b, t - 1] > 0
            before = table[b, t - 1]
            wanted = before[tokens[b, t]] if predicted else 0.0
            entropy = -np.sum(np.exp(before) * before) if predicted else 0.0
            np.testing.assert_allclose(out.logprobs_bt[b, t], wanted, atol=1e-4)
            np.testing.assert_allclose(out.entropy_bt[b, t], entropy, atol=1e-4)


def test_logprobs_from_a_column_on_equal_the_whole(decoder):
    tokens = jax.random.randint(jax.random.key(5), (3, 20), 0, TINY.vocab_size)
    segments = jnp.ones_like(tokens).at[0, :7].set(0)
    hidden = decoder.hidden(tokens, segments)
    whole = logprobs_of_hidden(decoder, hidden, tokens, segments, 0.7)
    part = logprobs_of_hidden(decoder, hidden, tokens, segments, 0.7, start=9)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_allclose(a[:, 9:], b[:, 9:], atol=1e-4)
        assert not b[:, :9].any()


def test_no_array_of_all_logits(mesh):
    """Neither the log-probabilities nor their gradient hold [b, t, v] at once."""
    b, t, v = 2, 160, TINY.vocab_size
    graph, params = nnx.split(tiny_decoder())
    tokens = jnp.zeros((b, t), jnp.int32)
    batch = {"tokens": tokens, "segments": tokens + 1, "loss_mask": tokens + 1}
    jaxpr = jax.make_jaxpr(jax.grad(lambda p: sft_loss_sum(nnx.merge(graph, p), batch)[0]))(params)
    shapes = {tuple(shape) for shape in array_shapes(jaxpr.jaxpr)}
    assert (v, TINY.d_model) in shapes  # the walk sees what is there
    whole = [s for s in shapes if v in s and np.prod(s) > b * 64 * v]
    assert not whole


def array_shapes(jaxpr):
    for equation in jaxpr.eqns:
        yield from (x.aval.shape for x in equation.outvars)
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")
        ):
            if hasattr(inner, "eqns"):
                yield from array_shapes(getattr(inner, "jaxpr", inner))
