"""Loss sums; dividing by their weight is left to the train step, so that micro-batches add up."""

import jax
import jax.numpy as jnp

from cai_jax.learning.logprobs import token_logprobs
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel
from cai_jax.parallel.program import Array

Batch = dict[str, Array]
TOKENS = ("tokens", "first", "second")  # of a batch: arrays of token ids
Sums = dict[str, jax.Array]  # float32 sums over a batch; "weight" counts what was summed


def sft_loss_sum(decoder: Decoder, batch: Batch[jax.Array]) -> tuple[jax.Array, Sums]:
    """Negative log-likelihood, nats, of the tokens where ``loss_mask`` is 1.

    Args:
      decoder: the policy.
      batch: int32 [b, t] ``tokens``, ``segments``, ``loss_mask``.
    """
    logprobs = token_logprobs(decoder, batch["tokens"], batch["segments"], remat=True).logprobs_bt
    mask = batch["loss_mask"].astype(jnp.float32)
    loss = -jnp.sum(logprobs * mask)
    return loss, {"loss": loss, "weight": jnp.sum(mask)}


def bradley_terry_loss(margin: jax.Array, target: jax.Array) -> jax.Array:
    """Cross-entropy, nats, of P(first is better) = sigmoid(margin) against a soft target.

    Bradley and Terry 1952; soft targets: Bai et al. 2022, section 4.1.
    """
    return -(target * jax.nn.log_sigmoid(margin) + (1 - target) * jax.nn.log_sigmoid(-margin))


def preference_loss_sum(model: PreferenceModel, batch: Batch[jax.Array]) -> tuple[jax.Array, Sums]:
    """Bradley-Terry loss of pairs, both sides in one forward pass.

    Args:
      model: the preference model.
      batch: int32 [r, t] ``tokens`` and ``segments``, several dialogues a row; int32 [b] ``first``
        and ``second``, where in these rows, one after the other, the last tokens of both sides
        are; float32 [b] ``target``, P(first is better), and ``weight`` in the loss, 0 for pairs
        that only fill the batch.
    """
    scores = model.every_score(batch["tokens"], batch["segments"], remat=True).reshape(-1)
    first, second = scores[batch["first"]], scores[batch["second"]]
    margin, target, weight = first - second, batch["target"], batch["weight"]
    loss = jnp.sum(bradley_terry_loss(margin, target) * weight)
    agrees = ((margin > 0) == (target > 0.5)).astype(jnp.float32)
    return loss, {
        "loss": loss,
        "agreement": jnp.sum(agrees * weight),
        "margin": jnp.sum(jnp.abs(margin) * weight),
        "weight": jnp.sum(weight),
    }
