"""Sampling from a decoder: rows that do not feel their batch."""

import jax.numpy as jnp
import numpy as np
import pytest
from generation_rows import KEYS, PROMPTS

from cai_jax.generation import engine
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.parallel.program import Program


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


def test_a_slot_takes_the_next_row_and_changes_none(mesh, mesh8, model):
    """Rows that end at any length, in few slots, beside others, in any order: each as alone."""
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 60, rng.integers(1, 20)).tolist() for _ in range(14)]
    keys = [named_key(1, "row", i) for i in range(14)]
    limits = rng.integers(1, 16, 14)
    stops = tuple(range(6))
    order = rng.permutation(14)
    alone = [
        Generator(model, mesh, stops, 1, 8).generate([p], [k], [n], Sampling())[0]
        for p, k, n in zip(prompts, keys, limits, strict=True)
    ]
    assert {c.finished for c in alone} == {True, False}
    assert len({len(c.ids) for c in alone}) > 5
    for slots, layout in ((3, mesh), (5, mesh), (8, mesh8), (32, mesh)):
        found = Generator(model, layout, stops, slots, 8).generate(
            [prompts[i] for i in order],
            [keys[i] for i in order],
            [int(limits[i]) for i in order],
            Sampling(),
        )
        assert [c.ids for c in found] == [alone[i].ids for i in order]
        assert [c.finished for c in found] == [alone[i].finished for i in order]


def test_samples_of_one_prompt_read_it_once(mesh, model, monkeypatch):
    read, call = [], Program.__call__

    def spy(program, *args):
        if program.name.endswith("prompts"):
            sources = np.asarray(args[5])
            read.append(len(set(sources[sources >= 0].tolist())))
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    keys = [named_key(2, "sample", i) for i in range(12)]
    generator = Generator(model, mesh, (), 12, 8)
    found = generator.generate([[5, 6, 7]] * 6 + [[8, 9]] * 6, keys, 5, Sampling())
    assert read == [2]
    assert len({tuple(c.ids) for c in found}) > 6


@pytest.mark.parametrize("slots", [3, 16])
def test_what_prompts_share_is_read_once_and_changes_no_token(
    mesh, mesh8, model, slots, monkeypatch
):
    heads = [list(range(1, 56)) + list(range(1, 30)), [7, *range(1, 66)], []]
    prompts = [[*head, *range(20, 20 + n)] for head in heads for n in (1, 4, 9, 30)]
    shared = [len(head) for head in heads for _ in range(4)]
    keys = [named_key(3, "row", i) for i in range(12)]
    read, call = [], Program.__call__

    def spy(program, *args):
        if program.name.endswith("shared"):
            read.append(tuple(np.asarray(args[2])[0].tolist()))
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    whole = Generator(model, mesh, [3], slots, 8, 160).generate(prompts, keys, 9, Sampling())
    assert not read
    for layout in (mesh, mesh8):
        generator = Generator(model, layout, [3], slots, 8, 160)
        found = generator.generate(prompts, keys, 9, Sampling(), shared=shared)
        assert [c.ids for c in found] == [c.ids for c in whole]
        for one, other in zip(found, whole, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
        assert len(read) == 2  # each beginning once, whatever comes after it
        read.clear()
    alone = Generator(model, mesh, [3], slots, 8, 160)
    (row,) = alone.generate(prompts[2:3], keys[2:3], 9, Sampling(), shared=shared[2:3])
    assert row.ids == found[2].ids


def test_few_shared_tokens_are_read_with_the_rest(mesh, model, monkeypatch):
    names, call = [], Program.__call__
    spy = lambda program, *args: (names.append(program.name), call(program, *args))[1]
    monkeypatch.setattr(Program, "__call__", spy)
    Generator(model, mesh, [3], 4, 8).generate(PROMPTS, KEYS, 3, Sampling(), shared=[1, 5, 0, 2, 2])
    assert not any(name.endswith("shared") for name in names)


@pytest.mark.parametrize("shared", [[3, 0, 0, 0, 0], [-1, 0, 0, 0, 0]])
def test_something_follows_what_is_shared(mesh, model, shared):
    with pytest.raises(ValueError, match="nothing after what it shares"):
        Generator(model, mesh, [3], 4, 8).generate(PROMPTS, KEYS, 3, Sampling(), shared=shared)


def test_what_was_read_is_kept_as_long_as_there_is_room(mesh, model, monkeypatch):
    read, call = [], Program.__call__

    def spy(program, *args):
        if program.name.endswith("shared"):
            read.append(np.asarray(args[2])[0, 0])
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    generator = Generator(model, mesh, [3], 4, 8)

    def ask(first):
        prompt = [first, *range(20, 90)]
        (row,) = generator.generate([prompt], KEYS[:1], 3, Sampling(), shared=[70])
        return row.ids

    found = [ask(first) for first in (1, 2, 1, 2)]
    assert found[:2] == found[2:]
    assert read == [1, 2]
    monkeypatch.setattr(generator, "_room", 0)  # no room but for the latest
    assert [ask(first) for first in (2, 2, 1)] == [found[1], found[1], found[0]]
    assert read == [1, 2, 1]


@pytest.mark.parametrize(("count", "calls"), [(1, [1]), (5, [2, 2, 1]), (12, [12])])
def test_few_prompts_are_read_few_at_a_time(mesh, model, monkeypatch, count, calls):
    """The program for all slots is for when most of them start together."""
    monkeypatch.setattr(engine, "FEW_TOKENS", 16)  # two prompts of a width of 8
    read, call = [], Program.__call__

    def spy(program, *args):
        if program.name.endswith("prompts"):
            sources = np.asarray(args[5])
            read.append((len(args[3]), len(set(sources[sources >= 0].tolist()))))
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    prompts = [[5, 6, 7 + i] for i in range(count)]
    keys = [named_key(2, "sample", i) for i in range(count)]
    Generator(model, mesh, (), 16, 8).generate(prompts, keys, 2, Sampling())
    assert [rows for _, rows in read] == calls
    assert {size for size, _ in read} == {16 if count == 12 else 2}


def test_many_prompts_are_read_a_few_thousand_tokens_at_a_time(mesh, model, monkeypatch):
    """Whatever the number of slots: what a model computes on the way must fit, too."""
    prompts = [[5, 6, 7 + i] for i in range(12)]
    keys = [named_key(2, "many", i) for i in range(12)]
    generate = lambda: Generator(model, mesh, (), 12, 8).generate(prompts, keys, 5, Sampling())
    at_once = generate()
    read, call = [], Program.__call__

    def spy(program, *args):
        if program.name.endswith("prompts"):
            read.append(args[3].shape)
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    monkeypatch.setattr(engine, "FEW_TOKENS", 8)
    monkeypatch.setattr(engine, "MANY_TOKENS", 40)  # five prompts of a width of 8
    in_parts = generate()
    assert read == [(5, 8), (5, 8), (1, 8), (1, 8)]
    assert [c.ids for c in in_parts] == [c.ids for c in at_once]
