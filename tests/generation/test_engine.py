"""Sampling from a decoder: rows that do not feel their batch."""

import jax.numpy as jnp
import numpy as np
import pytest
from generation_rows import KEYS, PROMPTS

from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key


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


def test_a_row_never_draws_twice_with_one_key(mesh, model):
    """Same prompts under different keys part, and so do the steps of a row."""
    flat = Sampling(temperature=50.0)  # every step is nearly uniform
    keys = [named_key(0, "rows", i) for i in range(6)]
    rows = Generator(model, mesh, [], 6, 8).generate([[5, 6]] * 6, keys, 12, flat)
    assert len({tuple(row.ids) for row in rows}) == 6
    assert all(len(set(row.ids)) > 6 for row in rows)
