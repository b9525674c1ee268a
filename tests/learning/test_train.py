"""Updates: what they change, and what they do not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, at_rest, tiny_decoder
from flax import nnx
from learning_batches import pair_batch, sft_batch

from cai_jax.learning.losses import preference_loss_sum, sft_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.train import init_state, make_trainable, mean_loss_grads, train_step
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel

FLOAT32 = jnp.dtype(jnp.float32)


@pytest.mark.parametrize("kind", ["sft", "preference"])
def test_micro_batches_change_no_update(mesh, kind):
    """Token counts, and weights of pairs, are unequal between micro-batches."""
    loss_sum, batch, weight, module = {
        "sft": (sft_loss_sum, lambda parts: sft_batch(), 10 + 3 + 7 + 1, Decoder),
        "preference": (preference_loss_sum, pair_batch, 3, PreferenceModel),
    }[kind]
    blueprint = Blueprint(module, TINY, FLOAT32, LoRAConfig(2, 4.0))
    optimizer = make_optimizer(1e-3, 0, 1.0, 1e-5)
    after = []
    for micro_batches in (1, 2, 4):
        trainable = make_trainable(blueprint, at_rest(tiny_decoder()).params, mesh, seed=0)
        params = jax.tree.map(lambda x: x + 0.01, trainable.params)
        after.append(
            train_step(
                init_state(params, optimizer),
                trainable.frozen,
                batch(micro_batches),
                loss_sum=loss_sum,
                graph=trainable.graph,
                optimizer=optimizer,
                micro_batches=micro_batches,
            )
        )
        assert after[-1][1]["weight"] == weight
    for other in after[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), other, after[0])


def test_a_mean_is_one_of_weights_that_sum_to_less_than_1(mesh):
    """The gradient and loss of a batch do not depend on the unit of its weights."""
    graph, params = nnx.split(PreferenceModel(TINY, rngs=nnx.Rngs(0)))
    batch = pair_batch(target=np.array([1.0, 1.0, 0.0, 0.5], np.float32))
    light = batch | {"weight": batch["weight"] / 100}
    whole, part = (
        mean_loss_grads(preference_loss_sum, graph, params, nnx.State({}), b, 1)
        for b in (batch, light)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), whole[0], part[0])
    np.testing.assert_allclose(whole[1]["loss"], part[1]["loss"], rtol=1e-4)


@pytest.mark.parametrize("lora", [None, LoRAConfig(2, 4.0)])
def test_sft_lowers_the_loss_and_trains_only_what_it_should(mesh, lora):
    base = at_rest(tiny_decoder()).params
    trainable = make_trainable(Blueprint(Decoder, TINY, FLOAT32, lora), base, mesh, seed=0)
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


def test_preference_model_learns_its_pairs(mesh):
    blueprint = Blueprint(PreferenceModel, TINY, FLOAT32, LoRAConfig(4, 8.0))
    trainable = make_trainable(blueprint, at_rest(tiny_decoder()).params, mesh, seed=0)
    optimizer = make_optimizer(2e-2, 0, 1.0)
    state = init_state(trainable.params, optimizer)
    batch = pair_batch(target=np.array([1.0, 1.0, 0.0, 0.5], np.float32))
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
