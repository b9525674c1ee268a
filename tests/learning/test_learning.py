"""Log-probabilities, losses and updates against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, at_rest, tiny_decoder
from flax import nnx
from scipy.special import log_softmax

from cai_jax.learning.logprobs import token_logprobs
from cai_jax.learning.losses import (
    bradley_terry_loss,
    preference_loss_sum,
    sft_loss_sum,
)
from cai_jax.learning.train import (
    init_state,
    make_optimizer,
    make_trainable,
    train_step,
)
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel


@pytest.mark.parametrize("temperature", [1.0, 0.6, 2.5])
@pytest.mark.parametrize("length", [2, 23, 65, 130])
def test_token_logprobs_match_numpy(decoder, temperature, length):
    tokens = jax.random.randint(jax.random.key(length), (2, length), 0, TINY.vocab_size)
    segments = jnp.ones_like(tokens).at[0, : length // 3].set(0)
    out = token_logprobs(decoder, tokens, segments, temperature)
    logits = np.asarray(decoder.logits(decoder.hidden(tokens, segments)), np.float64)
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
    whole = token_logprobs(decoder, tokens, segments, 0.7)
    part = token_logprobs(decoder, tokens, segments, 0.7, start=9)
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


def test_bradley_terry_soft_targets_and_gradient():
    margin = np.array([-3.0, -0.2, 0.0, 1.5])
    target = np.array([0.1, 0.5, 0.9, 1.0])
    p = 1 / (1 + np.exp(-margin))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    np.testing.assert_allclose(bradley_terry_loss(margin, target), expected, rtol=1e-5)
    grad = jax.grad(lambda m: bradley_terry_loss(m, target).sum())(jnp.asarray(margin))
    np.testing.assert_allclose(grad, p - target, atol=1e-6)


def sft_batch(rows=4, length=12):
    tokens = jax.random.randint(jax.random.key(0), (rows, length), 0, TINY.vocab_size)
    lengths = np.array([12, 5, 9, 3][:rows])
    segments = (np.arange(length) < lengths[:, None]).astype(np.int32)
    mask = segments * (np.arange(length) >= 2)
    return {"tokens": tokens, "segments": jnp.asarray(segments), "loss_mask": jnp.asarray(mask)}


@pytest.mark.parametrize("kind", ["sft", "preference"])
def test_micro_batches_change_no_update(mesh, kind):
    """Token counts, and weights of pairs, are unequal between micro-batches."""
    loss_sum, batch, weight, module, name = {
        "sft": (sft_loss_sum, sft_batch(), 10 + 3 + 7 + 1, Decoder, ""),
        "preference": (preference_loss_sum, pair_batch(), 3, PreferenceModel, "decoder"),
    }[kind]
    lora, optimizer = LoRAConfig(2, 4.0), make_optimizer(1e-3, 0, 1.0, 1e-5)
    after = []
    for micro_batches in (1, 2, 4):
        trainable = make_trainable(
            lambda: module(TINY, lora, jnp.float32, rngs=nnx.Rngs(0)),
            at_rest(tiny_decoder()).params,
            lora,
            mesh,
            name,
        )
        params = jax.tree.map(lambda x: x + 0.01, trainable.params)
        after.append(
            train_step(
                init_state(params, optimizer),
                trainable.frozen,
                batch,
                loss_sum=loss_sum,
                graph=trainable.graph,
                optimizer=optimizer,
                micro_batches=micro_batches,
            )
        )
        assert after[-1][1]["weight"] == weight
    for other in after[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), other, after[0])


def test_sft_loss_ignores_what_stands_outside_the_mask(decoder):
    batch = sft_batch()
    loss, sums = sft_loss_sum(decoder, batch)
    changed = dict(batch, tokens=batch["tokens"].at[1, 7].set(1).at[3, 11].set(5))
    np.testing.assert_allclose(sft_loss_sum(decoder, changed)[0], loss, rtol=1e-5)
    logprobs = token_logprobs(decoder, batch["tokens"], batch["segments"]).logprobs_bt
    np.testing.assert_allclose(loss, -(logprobs * batch["loss_mask"]).sum(), rtol=1e-5)
    assert sums["weight"] == batch["loss_mask"].sum()


@pytest.mark.parametrize("lora", [None, LoRAConfig(2, 4.0)])
def test_sft_lowers_the_loss_and_trains_only_what_it_should(mesh, lora):
    def build():
        return Decoder(TINY, lora, jnp.float32, rngs=nnx.Rngs(0))

    base = at_rest(tiny_decoder()).params
    trainable = make_trainable(build, base, lora, mesh)
    names = {path[-1] for path, _ in nnx.to_flat_state(trainable.params)}
    assert names == {"lora_a", "lora_b"} if lora else "embedding" in names
    optimizer = make_optimizer(1e-2, 0, 1.0)
    state, losses = init_state(trainable.params, optimizer), []
    before = jax.device_get(trainable.frozen)
    for _ in range(8):
        state, metrics = train_step(
            state,
            trainable.frozen,
            sft_batch(),
            loss_sum=sft_loss_sum,
            graph=trainable.graph,
            optimizer=optimizer,
            micro_batches=2,
        )
        losses.append(float(metrics["loss"]))
    assert losses[-1] < 0.9 * losses[0]
    jax.tree.map(np.testing.assert_array_equal, before, jax.device_get(trainable.frozen))


def test_frozen_layers_stay_and_the_rest_trains_as_before(mesh):
    tokens = sft_batch()
    whole, upper = (
        nnx.state(jax.grad(lambda m: sft_loss_sum(m, tokens)[0])(module))
        for module in (
            tiny_decoder(),
            nnx.merge(
                nnx.graphdef(Decoder(TINY, None, jnp.float32, 2, rngs=nnx.Rngs(0))),
                nnx.state(tiny_decoder()),
            ),
        )
    )
    for (path, a), (_, b) in zip(nnx.to_flat_state(whole), nnx.to_flat_state(upper), strict=True):
        if path[0] == "blocks":
            np.testing.assert_allclose(a[...][2], b[...][2], rtol=1e-3, atol=1e-5)
            assert not np.any(b[...][:2])
            assert np.any(a[...][:2])


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


def test_preference_loss_is_antisymmetric_and_ignores_filler():
    model = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jnp.linspace(-2, 2, TINY.d_model))
    batch = pair_batch()
    loss, sums = preference_loss_sum(model, batch)
    swapped = dict(
        batch,
        first=batch["second"],
        second=batch["first"],
        first_segments=batch["second_segments"],
        second_segments=batch["first_segments"],
        target=1 - batch["target"],
    )
    np.testing.assert_allclose(preference_loss_sum(model, swapped)[0], loss, rtol=1e-5)
    filler = dict(batch, first=batch["first"].at[3].set(1))
    np.testing.assert_allclose(preference_loss_sum(model, filler)[0], loss, rtol=1e-5)
    assert sums["weight"] == 3


def test_preference_model_learns_its_pairs(mesh):
    lora = LoRAConfig(4, 8.0)

    def build():
        return PreferenceModel(TINY, lora, jnp.float32, rngs=nnx.Rngs(0))

    trainable = make_trainable(build, at_rest(tiny_decoder()).params, lora, mesh, "decoder")
    optimizer = make_optimizer(2e-2, 0, 1.0)
    state, batch = init_state(trainable.params, optimizer), pair_batch()
    batch["target"] = jnp.array([1.0, 1.0, 0.0, 0.5])
    for _ in range(25):
        state, metrics = train_step(
            state,
            trainable.frozen,
            batch,
            loss_sum=preference_loss_sum,
            graph=trainable.graph,
            optimizer=optimizer,
            micro_batches=1,
        )
    assert metrics["agreement"] == 1.0
    assert metrics["loss"] < 0.3


def test_adam_adds_epsilon_to_the_bias_corrected_root():
    """optax's and PyTorch's form; TensorFlow's divides epsilon by the correction (item 16)."""
    gradients = np.random.default_rng(0).normal(scale=1e-4, size=(6, 5))
    optimizer = make_optimizer(0.01, 0, 10.0, adam_eps=1e-5)
    state = optimizer.init(jnp.zeros(5))
    mean = square = np.zeros(5)
    for step, gradient in enumerate(gradients, 1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.95 * square + 0.05 * gradient**2
        corrected = mean / (1 - 0.9**step), square / (1 - 0.95**step)
        expected = -0.01 * corrected[0] / (np.sqrt(corrected[1]) + 1e-5)
        updates, state = optimizer.update(jnp.asarray(gradient), state, jnp.zeros(5))
        np.testing.assert_allclose(updates, expected, rtol=1e-4)


def test_a_cosine_voids_no_update():
    grads = {"w": jnp.ones(1)}
    optimizer = make_optimizer(0.1, 2, 10.0, decay_steps=5)
    state, sizes = optimizer.init(grads), []
    for _ in range(5):
        updates, state = optimizer.update(grads, state, grads)
        sizes.append(-float(updates["w"][0]))
    assert sizes[0] == pytest.approx(0.05, rel=1e-4)
    assert max(sizes) == pytest.approx(0.1, rel=1e-4)
    assert 0.01 < sizes[-1] < sizes[-2]


def test_optimizer_first_update_is_not_void_and_warms_up():
    grads = {"w": jnp.ones(3)}
    for warmup, expected in ((0, 0.1), (1, 0.1), (4, 0.025)):
        optimizer = make_optimizer(0.1, warmup, 10.0)
        updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
        np.testing.assert_allclose(updates["w"], -expected, rtol=1e-4)
