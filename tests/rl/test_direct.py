"""DPO and IPO on soft labels against NumPy in float64."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import at_rest

from cai_jax.generation.scoring import Scorer
from cai_jax.rl.direct import DPO, IPO, Pair, reference_margins

CONSTANTS = {
    "beta": 0.3,
    "epochs": 2,
    "batch_size": 4,
    "micro_batches": 1,
    "sequence_length": 16,
}
RNG = np.random.default_rng(0)


def dpo(margin, target, beta):
    p = 1 / (1 + np.exp(-beta * margin))
    loss = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    return loss, beta * (p - target)


def ipo(margin, target, beta):
    off = margin - (2 * target - 1) / (2 * beta)
    return off**2, 2 * off


@pytest.mark.parametrize(("kind", "golden"), [(DPO, dpo), (IPO, ipo)])
def test_loss_and_gradient_are_their_formulas(kind, golden):
    margin, target = RNG.normal(0, 3, 32), RNG.random(32)
    algorithm = kind(**CONSTANTS)
    as_array = lambda x: jnp.asarray(x, jnp.float32)
    loss, grad = jax.vmap(jax.value_and_grad(lambda m, t: algorithm.loss(m[None], t[None])[0]))(
        as_array(margin), as_array(target)
    )
    wanted, wanted_grad = golden(margin, target, CONSTANTS["beta"])
    np.testing.assert_allclose(loss, wanted, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grad, wanted_grad, rtol=1e-4, atol=1e-5)


def pairs_of(count: int, target: float | None = None) -> list[Pair]:
    ids = lambda n: RNG.integers(3, 97, n).tolist()
    label = lambda: float(RNG.random()) if target is None else target
    return [Pair(ids(3 + i % 3), (ids(4), ids(2 + i % 4)), label()) for i in range(count)]


def first_batch(algorithm, decoder, mesh, pairs):
    scorer = Scorer(at_rest(decoder), mesh, 4)
    margins = reference_margins(scorer, pairs)
    batch = next(algorithm.batches(pairs, margins, 0, [16]))
    return margins, {name: jnp.asarray(value) for name, value in batch.items()}


@pytest.mark.parametrize("kind", [DPO, IPO])
def test_a_policy_at_its_reference_has_no_margin(decoder, mesh, kind):
    algorithm, pairs = kind(**CONSTANTS), pairs_of(4)
    _, batch = first_batch(algorithm, decoder, mesh, pairs)
    total, sums = algorithm(decoder, batch)
    np.testing.assert_allclose(sums["margin"], 0, atol=1e-4)
    target = np.asarray(batch["target"])
    wanted = {DPO: 4 * np.log(2), IPO: np.sum(((2 * target - 1) / (2 * 0.3)) ** 2)}[kind]
    np.testing.assert_allclose(total, wanted, rtol=1e-4)


@pytest.mark.parametrize("kind", [DPO, IPO])
def test_an_even_label_between_equal_responses_has_no_gradient(decoder, mesh, kind):
    from flax import nnx

    same = [Pair([5, 6], ([7, 8, 9], [7, 8, 9]), 0.5) for _ in range(4)]
    algorithm = kind(**CONSTANTS)
    _, batch = first_batch(algorithm, decoder, mesh, same)
    graph, params = nnx.split(decoder)
    grads = jax.grad(lambda p: algorithm(nnx.merge(graph, p), batch)[0])(params)
    assert all(float(jnp.abs(g).max()) == 0 for g in jax.tree.leaves(grads))


def test_a_pair_counts_by_its_weight(decoder, mesh):
    pairs = pairs_of(4)
    light = [replace(pair, weight=0.25) for pair in pairs]
    algorithm = DPO(**CONSTANTS)
    (whole, sums), (part, light_sums) = (
        algorithm(decoder, first_batch(algorithm, decoder, mesh, given)[1])
        for given in (pairs, light)
    )
    np.testing.assert_allclose(part, 0.25 * whole, rtol=1e-5)
    assert (sums["weight"], light_sums["weight"]) == (4, 1)


def test_margins_are_sums_over_the_responses_alone(decoder, mesh):
    pairs = pairs_of(3)
    scorer = Scorer(at_rest(decoder), mesh, 4)
    margins = reference_margins(scorer, pairs)
    for pair, margin in zip(pairs, margins, strict=True):
        one, other = (
            scorer.completion_logprobs([pair.prompt], [response])[0].sum()
            for response in pair.responses
        )
        assert margin == pytest.approx(one - other, abs=1e-4)


def test_every_pair_once_an_epoch_in_another_order():
    algorithm, pairs = DPO(**CONSTANTS), pairs_of(10)
    batches = list(algorithm.batches(pairs, np.arange(10.0), 0, [16]))
    assert len(batches) == 2 * 3
    seen = [b["reference"][b["weight"] > 0] for b in batches]
    epochs = np.concatenate(seen[:3]), np.concatenate(seen[3:])
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs)
    assert list(epochs[0]) != list(epochs[1])
    assert all(b["first"].shape == (4, 16) for b in batches)


def test_masks_are_on_responses_alone():
    algorithm, pairs = DPO(**CONSTANTS), pairs_of(4)
    batch = next(algorithm.batches(pairs, np.arange(4.0), 0, [16]))
    for row, number in enumerate(batch["reference"].astype(int)):
        pair = pairs[number]
        for side, name in enumerate(("first", "second")):
            mask = batch[f"{name}_mask"][row].astype(bool)
            assert batch[name][row][mask].tolist() == pair.responses[side]
            start = len(pair.prompt)
            assert not mask[:start].any()
            assert batch[name][row][:start].tolist() == pair.prompt


def test_a_batch_is_as_narrow_as_its_rows_and_its_loss_the_same(decoder):
    algorithm, pairs = DPO(**CONSTANTS), pairs_of(4)
    longest = max(pair.tokens for pair in pairs)
    narrow, wide = (
        next(algorithm.batches(pairs, np.arange(4.0), 0, widths))
        for widths in ([16, longest, longest - 1], [16])
    )
    assert (narrow["first"].shape, wide["first"].shape) == ((4, longest), (4, 16))
    of = lambda batch: algorithm(decoder, {name: jnp.asarray(x) for name, x in batch.items()})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), of(narrow), of(wide))


def test_micro_batches_change_no_loss(decoder, mesh):
    """Sums add up: the loss of a batch is that of its parts."""
    algorithm, pairs = DPO(**CONSTANTS), pairs_of(4)
    _, batch = first_batch(algorithm, decoder, mesh, pairs)
    whole, _ = algorithm(decoder, batch)
    parts = [algorithm(decoder, jax.tree.map(lambda x, i=i: x[i::2], batch))[0] for i in range(2)]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-5)
