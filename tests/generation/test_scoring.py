"""Scores of rows that do not feel their batch."""

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, at_rest
from flax import nnx
from generation_rows import PROMPTS

from cai_jax.generation import scoring, sharing
from cai_jax.generation.scoring import Scorer
from cai_jax.models.heads import PreferenceModel
from cai_jax.parallel.program import Program


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


def test_what_is_kept_of_a_pack_is_its_rows(mesh, monkeypatch):
    """Packs have room for many rows; neither memory nor journal holds the places of none."""
    kept = []

    def recorded(name, batch, compute):
        kept.extend(values := compute())
        return values

    monkeypatch.setattr(scoring, "recorded", recorded)
    rows = [[5, 6, 7], [8, 9], [5, 7, 9, 11]]
    scorer = Scorer(at_rest(PreferenceModel(TINY, rngs=nnx.Rngs(0))), mesh, batch_size=1)
    features = scorer.preference_features(rows, "score")
    assert [values.shape for values in kept] == [(len(rows), TINY.d_model)]
    np.testing.assert_array_equal(np.sort(kept[0], axis=0), np.sort(features, axis=0))


def test_nothing_asked_is_nothing_read(mesh, model):
    scorer = Scorer(model, mesh, batch_size=2)
    assert scorer.choice_logprobs([], [5, 6]).shape == (0, 2)
    assert scorer.completion_logprobs([], []) == []


def test_a_dialogue_is_read_once(mesh, monkeypatch):
    """Within a call, and by whatever asks next; what was read longest ago is read again."""
    module = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    module.head.kernel.set_value(jnp.linspace(-1, 1, TINY.d_model))
    scorer, tokens = Scorer(at_rest(module), mesh, 4, 8), sum(map(len, PROMPTS))
    scores = scorer.preference_scores([*PROMPTS, *PROMPTS[::-1]])
    assert scorer.tokens == tokens
    np.testing.assert_array_equal(scores, [*scores[: len(PROMPTS)], *scores[: len(PROMPTS)][::-1]])
    features = scorer.preference_features(PROMPTS, "features")
    assert scorer.tokens == tokens
    expected = [module(jnp.array([row]), jnp.ones((1, len(row)), int))[0] for row in PROMPTS]
    np.testing.assert_allclose(features @ module.head.kernel[...], expected, atol=1e-4)
    np.testing.assert_allclose(scores[: len(PROMPTS)], expected, atol=1e-4)
    assert scorer.preference_features([], "features").shape == (0, TINY.d_model)
    assert scorer.preference_scores([]).shape == (0,)
    monkeypatch.setattr(scoring, "KNOWN_ROWS", 2)
    new = [[9, 8, 7], [7, 7]]
    for _ in range(2):
        scorer.preference_scores(new)
    assert scorer.tokens == tokens + 5
    np.testing.assert_allclose(scorer.preference_scores(PROMPTS[:1]), scores[:1], rtol=1e-5)
    assert scorer.tokens == tokens + 5 + len(PROMPTS[0])


BEGINNINGS = [list(range(1, 40)), list(range(10, 90))]


def begun_alike():
    """Rows of two groups with rests of many lengths, one of them long, and rows of no group."""
    rng = np.random.default_rng(0)
    sizes = (*(3, 1, 9, 30, 2) * 3, 700)
    rests = [rng.integers(1, 60, size).tolist() for size in sizes]
    rows = [[*BEGINNINGS[i % 2], *rest] for i, rest in enumerate(rests)]
    rows += [rng.integers(60, 90, 20).tolist() for _ in range(3)]
    return [rows[i] for i in rng.permutation(len(rows))]


@pytest.mark.parametrize("read", ["logprobs", "choices", "scores", "features"])
def test_rows_that_begin_alike_score_as_alone(mesh, mesh8, model, monkeypatch, read):
    module = PreferenceModel(TINY, frozen_layers=1, rngs=nnx.Rngs(0))
    module.head.kernel.set_value(jnp.linspace(-1, 1, TINY.d_model))
    one, judge, rows = model, at_rest(module), begun_alike()

    def scored(scorer):
        if read == "logprobs":
            cuts = [1 + len(row) * 7 // 8 for row in rows]
            return scorer.completion_logprobs(
                [row[:c] for row, c in zip(rows, cuts, strict=True)],
                [row[c:] for row, c in zip(rows, cuts, strict=True)],
            )
        if read == "choices":
            return scorer.choice_logprobs(rows, [4, 5, 9])
        if read == "scores":
            return scorer.preference_scores(rows)
        return scorer.preference_features(rows, "read")

    subject = one if read in ("logprobs", "choices") else judge
    monkeypatch.setattr(sharing, "LEAST_SAVED", 10**9)
    alone = scored(Scorer(subject, mesh, 2, 64))
    monkeypatch.undo()
    called, call = [], Program.__call__

    def spy(program, *args):
        called.append(program)
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    # Three packs of two groups, one, all and two of them side by side.
    for layout, batch_size, reads, calls in ((mesh, 2, 2, 3), (mesh8, 2, 1, 1), (mesh, 8, 2, 2)):
        called.clear()
        found = scored(Scorer(subject, layout, batch_size, 64))
        names = [program.name.rpartition(", ")[2] for program in called]
        assert names.count("prefix") == reads
        assert names.count("rests") == calls
        for ours, theirs in zip(found, alone, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_rows_share_where_most_of_their_tokens_are_then_saved():
    few_shots = list(range(100))
    asked = [[*few_shots, i, i] for i in range(6)]
    pair = [[7] * 90 + [i] * 60 for i in range(2)]  # 90 of 300 tokens
    rows = asked + pair
    found = sharing.groups(rows, [len(row) - 1 for row in rows])
    shared = {group.rows: group.shared for group in found}
    assert shared == {(0, 1, 2, 3, 4, 5): 96, (6,): 0, (7,): 0}


def test_packs_of_one_group_are_read_side_by_side(mesh, model, monkeypatch):
    """A group of many packs is not read beside small groups that are read again and again."""
    monkeypatch.setattr(scoring, "REST_TOKENS", 32)
    rng = np.random.default_rng(0)
    rows = [[*([4] * 40), *rng.integers(5, 90, 16)] for _ in range(16)]  # eight packs
    rows += [[*([5] * 40), *rng.integers(5, 90, 4)] for _ in range(5)]  # one
    called, call = [], Program.__call__

    def spy(program, *args):
        called.append(program.name)
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    scorer = Scorer(model, mesh, 8, 64)  # two side by side
    found = scorer.choice_logprobs(rows, [4, 5, 9])
    assert called.count("choose, rests") == 5  # nine packs
    assert called.count("choose, prefix") == 2  # once for the eight, and for the one
    monkeypatch.setattr(sharing, "LEAST_SAVED", 10**9)
    np.testing.assert_allclose(found, scorer.choice_logprobs(rows, [4, 5, 9]), atol=1e-4)


@pytest.mark.parametrize("seed", range(5))
def test_groups_hold_every_row_once_and_share_what_they_say(seed):
    rng = np.random.default_rng(seed)
    rows = [
        [*[int(rng.integers(2))] * int(rng.integers(100)), *rng.integers(2, 9, 1 + seed)]
        for _ in range(40)
    ]
    shareable = [int(rng.integers(len(row) // 2, len(row))) for row in rows]
    found = sharing.groups(rows, shareable)
    assert sorted(i for group in found for i in group.rows) == list(range(40))
    assert any(group.shared for group in found)
    for group in found:
        assert all(group.shared <= shareable[i] for i in group.rows)
        assert len({tuple(rows[i][: group.shared]) for i in group.rows}) == 1
        packs = sharing.pack(rows, group, 50, 4)
        assert [i for p in packs for i in p.rows] == list(group.rows)
        assert all(len(p.rows) == 1 or (p.tokens <= 50 and len(p.rows) <= 4) for p in packs)
