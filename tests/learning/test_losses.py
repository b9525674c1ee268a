"""Losses against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import TINY
from flax import nnx
from learning_batches import pair_batch, pairs, sft_batch

from cai_jax.learning.logprobs import token_logprobs
from cai_jax.learning.losses import bradley_terry_loss, preference_loss_sum, sft_loss_sum
from cai_jax.models.heads import PreferenceModel


def test_bradley_terry_soft_targets_and_gradient():
    margin = np.array([-3.0, -0.2, 0.0, 1.5])
    target = np.array([0.1, 0.5, 0.9, 1.0])
    p = 1 / (1 + np.exp(-margin))
    expected = -(target * np.log(p) + (1 - target) * np.log(1 - p))
    np.testing.assert_allclose(bradley_terry_loss(margin, target), expected, rtol=1e-5)
    grad = jax.grad(lambda m: bradley_terry_loss(m, target).sum())(jnp.asarray(margin))
    np.testing.assert_allclose(grad, p - target, atol=1e-6)


def test_sft_loss_ignores_what_stands_outside_the_mask(decoder):
    batch = sft_batch()
    loss, sums = sft_loss_sum(decoder, batch)
    changed = dict(batch, tokens=batch["tokens"].at[1, 7].set(1).at[3, 11].set(5))
    np.testing.assert_allclose(sft_loss_sum(decoder, changed)[0], loss, rtol=1e-5)
    logprobs = token_logprobs(decoder, batch["tokens"], batch["segments"]).logprobs_bt
    np.testing.assert_allclose(loss, -(logprobs * batch["loss_mask"]).sum(), rtol=1e-5)
    assert sums["weight"] == batch["loss_mask"].sum()


def test_preference_loss_is_antisymmetric_and_ignores_filler():
    model = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jnp.linspace(-2, 2, TINY.d_model))
    batch = pair_batch()
    loss, sums = preference_loss_sum(model, batch)
    swapped = dict(batch, first=batch["second"], second=batch["first"], target=1 - batch["target"])
    np.testing.assert_allclose(preference_loss_sum(model, swapped)[0], loss, rtol=1e-5)
    filler = pairs()["first"]
    filler[3] = 1
    np.testing.assert_allclose(
        preference_loss_sum(model, pair_batch(first=filler))[0], loss, rtol=1e-5
    )
    assert sums["weight"] == 3


def test_packed_pairs_have_the_scores_of_rows_of_their_own():
    model = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jnp.linspace(-2, 2, TINY.d_model))
    read, packed = pairs(), pair_batch()
    assert len(np.unique(np.nonzero(packed["segments"])[0])) < 6  # six replies in fewer rows
    scores = model.every_score(packed["tokens"], packed["segments"]).reshape(-1)
    for side in ("first", "second"):
        alone = model(read[side], read[f"{side}_segments"])
        np.testing.assert_allclose(scores[packed[side]][:3], alone[:3], atol=1e-5)
