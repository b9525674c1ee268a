"""Sampling: right distribution, and rows that do not feel their batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, at_rest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cai_jax.generation.batching import buckets
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling, inverse_cdf, sample, sampling_logits
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.models.heads import PreferenceModel

PROMPTS = [[5, 6, 7], list(range(10, 31)), [1], list(range(40, 49)), [2, 2, 2, 2]]
KEYS = [named_key(0, "test", i) for i in range(len(PROMPTS))]


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(0.7, top_k=5), Sampling(temperature=0)])
def test_batched_rows_equal_single_rows(mesh, model, sampling):
    together = Generator(model, mesh, [3, 9], 8, 8).generate(PROMPTS, KEYS, 12, sampling)
    alone = Generator(model, mesh, [3, 9], 1, 16)
    for prompt, key, batched in zip(PROMPTS, KEYS, together, strict=True):
        (single,) = alone.generate([prompt], [key], 12, sampling)
        assert single.ids == batched.ids
        assert single.finished == batched.finished
        np.testing.assert_allclose(single.logprobs, batched.logprobs, atol=1e-4)


def test_generation_does_not_depend_on_the_mesh(mesh, mesh8, model):
    one = Generator(model, mesh, [3], 4, 8).generate(PROMPTS, KEYS, 10, Sampling())
    eight = Generator(model, mesh8, [3], 4, 8).generate(PROMPTS, KEYS, 10, Sampling())
    assert [c.ids for c in one] == [c.ids for c in eight]


def test_stops_at_a_stop_token_and_keeps_it(mesh, model):
    free = Generator(model, mesh, [], 8, 8).generate(PROMPTS, KEYS, 10, Sampling())
    stop = free[1].ids[4]
    first = free[1].ids.index(stop)
    stopped = Generator(model, mesh, [stop], 8, 8).generate(PROMPTS, KEYS, 10, Sampling())
    assert stopped[1].ids == free[1].ids[: first + 1]
    assert stopped[1].finished
    assert not free[1].finished
    assert len(free[1].ids) == 10


def test_greedy_follows_the_whole_sequence_argmax(mesh, decoder, model):
    (out,) = Generator(model, mesh, [], 1, 4).generate(
        [PROMPTS[1]], KEYS[:1], 8, Sampling(temperature=0)
    )
    tokens = jnp.array([[*PROMPTS[1], *out.ids]])
    logits = decoder.logits(decoder.hidden(tokens, jnp.ones_like(tokens)))
    before = len(PROMPTS[1]) - 1
    assert jnp.argmax(logits[0, before:-1], axis=-1).tolist() == out.ids


def test_sampler_logprobs_equal_the_scorers(mesh, model):
    sampling = Sampling(temperature=0.7)
    out = Generator(model, mesh, [3], 8, 8).generate(PROMPTS, KEYS, 9, sampling)
    scored = Scorer(model, mesh, 3, 8).completion_logprobs(
        PROMPTS, [c.ids for c in out], temperature=0.7
    )
    for completion, logprobs in zip(out, scored, strict=True):
        np.testing.assert_allclose(completion.logprobs, logprobs, atol=1e-4)


def test_batched_scores_equal_single_scores(mesh, model):
    replies = [[4, 5], [6], [7, 8, 9, 0], [0, 0], [11, 12, 13]]
    together = Scorer(model, mesh, 4, 8).completion_logprobs(PROMPTS, replies)
    alone = Scorer(model, mesh, 1, 1)
    for prompt, reply, batched in zip(PROMPTS, replies, together, strict=True):
        assert len(batched) == len(reply)
        np.testing.assert_allclose(
            alone.completion_logprobs([prompt], [reply])[0], batched, atol=1e-4
        )
    choices = Scorer(model, mesh, 4, 8).choice_logprobs(PROMPTS, [4, 5])
    np.testing.assert_allclose(choices[0, 0], together[0][0], atol=1e-4)


def test_batched_preference_scores_equal_single_scores(mesh):
    module = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    module.head.kernel.set_value(jnp.linspace(-1, 1, TINY.d_model))
    together = Scorer(at_rest(module), mesh, 4, 8).preference_scores(PROMPTS)
    alone = [Scorer(at_rest(module), mesh, 1, 1).preference_scores([p])[0] for p in PROMPTS]
    np.testing.assert_allclose(together, alone, atol=1e-4)


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


def test_a_row_never_draws_twice_with_one_key(mesh, model):
    """Same prompts under different keys part, and so do the steps of a row."""
    flat = Sampling(temperature=50.0)  # every step is nearly uniform
    keys = [named_key(0, "rows", i) for i in range(6)]
    rows = Generator(model, mesh, [], 6, 8).generate([[5, 6]] * 6, keys, 12, flat)
    assert len({tuple(row.ids) for row in rows}) == 6
    assert all(len(set(row.ids)) > 6 for row in rows)


def test_keys_come_from_names():
    assert (named_key(0, "a", 1) == named_key(0, "a", 1)).all()
    different = {tuple(named_key(*n)) for n in ((0, "a", 1), (1, "a", 1), (0, "a", 11), (0, "a1"))}
    assert len(different) == 4


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
