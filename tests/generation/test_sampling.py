"""The distribution that tokens are drawn from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cai_jax.generation.sampling import Sampling, inverse_cdf, sample, sampling_logits


@pytest.mark.parametrize(
    ("sampling", "kept"),
    [
        (Sampling(), {0: 0.4, 1: 0.3, 2: 0.2, 3: 0.1}),
        (Sampling(top_k=2), {0: 4 / 7, 1: 3 / 7}),
        (Sampling(top_p=0.65), {0: 4 / 7, 1: 3 / 7}),
        (Sampling(top_p=0.75), {0: 4 / 9, 1: 3 / 9, 2: 2 / 9}),
        (Sampling(top_k=3, top_p=0.7), {0: 4 / 7, 1: 3 / 7}),  # 0.4 and 0.3 of 0.9 are 0.78
        (Sampling(temperature=0.5), {0: 16 / 30, 1: 9 / 30, 2: 4 / 30, 3: 1 / 30}),
    ],
)
def test_sampled_distribution(sampling, kept):
    from scipy.stats import chisquare

    n = 20_000
    logits = jnp.log(jnp.array([0.4, 0.3, 0.2, 0.1]))[None].repeat(n, 0)
    tokens, logprobs = sample(logits, jax.random.split(jax.random.key(0), n), sampling)
    counts = np.bincount(tokens, minlength=4)
    expected = np.array([kept.get(i, 0.0) for i in range(4)])
    assert set(np.flatnonzero(counts)) == set(kept)
    inside = expected > 0
    assert chisquare(counts[inside], expected[inside] / expected.sum() * n).pvalue > 1e-4
    np.testing.assert_allclose(np.exp(logprobs), expected[np.asarray(tokens)], rtol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 9, 10, 1000, 151_936])
def test_inverse_cdf_never_draws_what_cannot_be(size):
    rng = np.random.default_rng(size)
    p = rng.random((64, size)).astype(np.float32) * (rng.random((64, size)) < 0.3)
    p[np.arange(64), rng.integers(size, size=64)] += 0.1  # a row has at least one
    p /= p.sum(1, keepdims=True)
    # Besides plain numbers, the ends themselves, where rounding decides.
    ends = np.cumsum(p.astype(np.float64), axis=1)
    some = [ends[:, rng.integers(size)].astype(np.float32) for _ in range(20)]
    for u in (0.0, 0.3, 1 - 2**-24, *(np.minimum(e, 1 - 2**-24) for e in some)):
        tokens = np.asarray(inverse_cdf(jnp.array(p), jnp.broadcast_to(jnp.float32(u), (64,))))
        assert (p[np.arange(64), tokens] > 0).all()
        before = np.where(tokens > 0, ends[np.arange(64), tokens - 1], 0.0)
        assert (before <= u + 1e-5).all()
        assert (ends[np.arange(64), tokens] >= u - 1e-5).all()


@settings(max_examples=100, deadline=None)
@given(
    # Quarters, so that logits tie and their order does not depend on rounding.
    arrays(np.int32, (2, 17), elements=st.integers(-12, 12)),
    st.integers(0, 20),
    st.floats(0.01, 1.0),
    st.sampled_from([0.5, 1.0, 2.0]),
)
def test_truncation_keeps_the_fewest_most_probable_tokens(quarters, top_k, top_p, temperature):
    logits = quarters.astype(np.float32) / 4
    truncated = np.asarray(
        sampling_logits(jnp.asarray(logits), Sampling(temperature, top_k, top_p))
    )
    for ours, row in zip(truncated, logits.astype(np.float64) / temperature, strict=True):
        order = sorted(range(17), key=lambda v: (-row[v], v))[: top_k or 17]  # first of ties first
        mass = np.cumsum(np.exp(row[order])) / np.exp(row[order]).sum()
        kept = np.flatnonzero(np.isfinite(ours))
        assert set(kept) == set(order[: len(kept)])
        np.testing.assert_array_equal(ours[kept], row[kept])
        assert np.isneginf(np.delete(ours, kept)).all()
        assert mass[len(kept) - 1] >= top_p - 1e-5
        assert len(kept) == 1 or mass[len(kept) - 2] < top_p + 1e-5
        assert top_p < 1 or len(kept) == len(order)


@pytest.mark.reference
@pytest.mark.parametrize(("top_k", "top_p"), [(7, 1.0), (0, 0.8), (20, 0.6), (0, 0.05), (1, 1.0)])
def test_truncation_is_that_of_transformers(top_k, top_p):
    torch = pytest.importorskip("torch", reason="pip install '.[reference]' to compare")
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    logits = np.random.default_rng(0).normal(scale=2, size=(6, 53)).astype(np.float32)
    theirs = torch.tensor(logits) / 0.7
    if top_k:
        theirs = TopKLogitsWarper(top_k)(None, theirs)
    theirs = TopPLogitsWarper(top_p)(None, theirs) if top_p < 1 else theirs
    ours = sampling_logits(jnp.asarray(logits), Sampling(0.7, top_k, top_p))
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-6)
