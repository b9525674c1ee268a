"""PPO (Schulman et al. 2017) on whole responses, in the order an iteration runs.

1. ``prepare`` recomputes the policy's log-probabilities and values, adds the KL penalty to the
   score, and estimates advantages.
2. ``update`` goes over the batch for some epochs in shuffled minibatches.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cai_jax.learning.logprobs import logprobs_of_hidden, token_logprobs
from cai_jax.learning.losses import Sums
from cai_jax.learning.train import TrainState, apply_grads, mean_loss_grads
from cai_jax.models.heads import PolicyWithValue
from cai_jax.parallel.mesh import constrain, join_rows, split_rows
from cai_jax.rl.advantages import generalized_advantages, token_rewards
from cai_jax.rl.kl import kl_estimates
from cai_jax.rl.masked import masked_mean, whiten
from cai_jax.rl.rollout import Rollout


@dataclass(frozen=True)
class PPOSettings:
    """Constants of the update."""

    prompt_length: int  # columns of a rollout before the first response token
    temperature: float  # logits are divided by it, when sampling and in every log-probability
    gamma: float
    lam: float  # of generalized advantage estimation
    clip_ratio: float
    clip_value: float
    value_coef: float
    entropy_coef: float
    epochs: int
    minibatches: int
    micro_batches: int


class Experience(NamedTuple):
    """A rollout with everything the update reads; fixed during the update."""

    tokens_bt: jax.Array
    segments_bt: jax.Array
    trunk_btd: jax.Array | None  # states below the trained layers, where some are frozen
    mask_bt: jax.Array
    logprobs_bt: jax.Array
    values_bt: jax.Array
    advantages_bt: jax.Array  # whitened over the batch
    returns_bt: jax.Array


def policy_outputs(
    model: PolicyWithValue,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    trunk_btd: jax.Array | None,
    settings: PPOSettings,
    remat: bool,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-probability, entropy and value [b, t] of each response token, as seen from before it."""
    hidden_btd = model.decoder.hidden(tokens_bt, segments_bt, remat, trunk_btd)
    scored = logprobs_of_hidden(
        model.decoder,
        hidden_btd,
        tokens_bt,
        segments_bt,
        settings.temperature,
        settings.prompt_length,
    )
    values_bt = jnp.pad(model.value_head(hidden_btd[:, :-1]), ((0, 0), (1, 0)))
    return scored.logprobs_bt, scored.entropy_bt, values_bt


@partial(jax.jit, static_argnames=("policy_graph", "reference_graph", "settings"))
def prepare(
    policy_params: nnx.State,
    frozen: nnx.State,
    reference_params: nnx.State,
    rollout: Rollout,
    kl_coef: jax.Array,
    *,
    policy_graph: nnx.GraphDef,
    reference_graph: nnx.GraphDef,
    settings: PPOSettings,
) -> tuple[Experience, Sums]:
    """From a rollout to what the update reads, and statistics of the rollout.

    Old log-probabilities are recomputed here, by the trainer, so that the first ratio is 1; how
    far the sampler's own differ is in the statistics. What both models freeze is run once.

    Raises:
      ValueError: policy and reference freeze different numbers of layers.
    """
    tokens, segments, mask = rollout.tokens_bt, rollout.segments_bt, rollout.mask_bt
    policy = nnx.merge(policy_graph, policy_params, frozen)
    reference_model = nnx.merge(reference_graph, reference_params)
    if reference_model.frozen_layers != policy.decoder.frozen_layers:
        raise ValueError(
            f"reference_graph freezes {reference_model.frozen_layers} layers, policy_graph "
            f"{policy.decoder.frozen_layers}: they share what is frozen, so both must be alike"
        )

    def outputs(rows):
        tokens, segments = rows
        trunk = policy.decoder.trunk(tokens, segments) if policy.decoder.frozen_layers else None
        ours = policy_outputs(policy, tokens, segments, trunk, settings, remat=False)
        theirs = token_logprobs(
            reference_model,
            tokens,
            segments,
            settings.temperature,
            start=settings.prompt_length,
            trunk_btd=trunk,
        )
        return trunk, *ours, theirs.logprobs_bt

    # As many rows at once as the update takes: bfloat16 products round by their shape.
    parts = settings.minibatches * settings.micro_batches
    mapped = jax.lax.map(outputs, split_rows((tokens, segments), parts))
    trunk, logprobs, entropy, values, reference = join_rows(mapped)
    rewards = token_rewards(rollout.scores_b, logprobs, reference, mask, kl_coef)
    advantages = generalized_advantages(rewards, values, mask, settings.gamma, settings.lam)
    experience = Experience(
        tokens_bt=tokens,
        segments_bt=segments,
        trunk_btd=trunk,
        mask_bt=mask,
        logprobs_bt=logprobs,
        values_bt=values,
        advantages_bt=whiten(advantages, mask),
        returns_bt=(advantages + values) * mask,
    )
    k1, _, k3 = kl_estimates(logprobs, reference)
    sampler_gap = jnp.abs(logprobs - rollout.sampler_logprobs_bt) * mask
    return experience, {
        "score": jnp.mean(rollout.scores_b),
        "kl_k1": jnp.mean(jnp.sum(k1 * mask, axis=1)),
        "kl_k3": jnp.mean(jnp.sum(k3 * mask, axis=1)),
        "response_tokens": jnp.mean(jnp.sum(mask, axis=1)),
        "entropy": masked_mean(entropy, mask),
        "value": masked_mean(values, mask),
        "return": masked_mean(experience.returns_bt, mask),
        "sampler_gap_mean": masked_mean(sampler_gap, mask),
        "sampler_gap_max": jnp.max(sampler_gap),
    }


def ppo_loss_sum(
    model: PolicyWithValue, batch: Experience, settings: PPOSettings
) -> tuple[jax.Array, Sums]:
    """Clipped surrogate plus clipped value loss minus entropy bonus, summed over tokens."""
    logprobs, entropy, values = policy_outputs(
        model, batch.tokens_bt, batch.segments_bt, batch.trunk_btd, settings, remat=True
    )
    log_ratio = jnp.where(batch.mask_bt > 0, logprobs - batch.logprobs_bt, 0.0)
    ratio = jnp.exp(log_ratio)
    low, high = 1 - settings.clip_ratio, 1 + settings.clip_ratio
    policy_loss = clipped_surrogate(ratio, batch.advantages_bt, low, high)
    value_loss = clipped_value_loss(values, batch.values_bt, batch.returns_bt, settings.clip_value)
    loss = policy_loss + settings.value_coef * value_loss - settings.entropy_coef * entropy
    total = lambda x: jnp.sum(x * batch.mask_bt)
    return total(loss), {
        "policy_loss": total(policy_loss),
        "value_loss": total(value_loss),
        "approx_kl": total(jnp.expm1(log_ratio) - log_ratio),
        "clip_fraction": total(((ratio < low) | (ratio > high)).astype(jnp.float32)),
        "ratio": total(ratio),
        "ratio_error": total(jnp.abs(ratio - 1)),
        "weight": jnp.sum(batch.mask_bt),
    }


def clipped_surrogate(ratio: Any, advantages: Any, low: float, high: float) -> jax.Array:
    """Negative clipped surrogate objective (Schulman et al. 2017, equation 7)."""
    return jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, low, high))


def clipped_value_loss(values: Any, old_values: Any, returns: Any, clip: float) -> jax.Array:
    """Half the larger of the squared errors with and without clipping to the old values."""
    clipped = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (clipped - returns) ** 2)


@partial(jax.jit, static_argnames=("graph", "optimizer", "settings"), donate_argnames=("state",))
def update(
    state: TrainState,
    frozen: nnx.State,
    experience: Experience,
    key_data: jax.Array,
    *,
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    settings: PPOSettings,
) -> tuple[TrainState, Sums]:
    """All epochs of one iteration.

    Args:
      state: policy, value function and optimizer.
      frozen: parameters that are not trained.
      experience: from ``prepare``.
      key_data: uint32 [2], fresh each iteration; shuffles.
      graph: of the PolicyWithValue.
      optimizer: what ``state`` was made with.
      settings: constants; minibatches divide the batch, micro-batches divide a minibatch.

    Returns:
      The state, and metrics with one entry a minibatch, in order.
    """
    loss_sum = lambda model, batch: ppo_loss_sum(model, batch, settings)
    rows = experience.tokens_bt.shape[0]

    def minibatch(state, indices):
        batch = jax.tree.map(partial(_take_rows, indices), experience)
        grads, metrics = mean_loss_grads(
            loss_sum, graph, state.params, frozen, batch, settings.micro_batches
        )
        metrics["grad_norm"] = optax.global_norm(grads)
        return apply_grads(state, grads, optimizer), metrics

    return jax.lax.scan(minibatch, state, minibatch_rows(key_data, rows, settings))


def _take_rows(indices: jax.Array, x: jax.Array) -> jax.Array:
    return constrain(x[indices], "batch", *(None,) * (x.ndim - 1))


def minibatch_rows(key_data: jax.Array, rows: int, settings: PPOSettings) -> jax.Array:
    """Int32 [epochs * minibatches, rows / minibatches]: every epoch a shuffle of its own."""
    keys = jax.random.split(jax.random.wrap_key_data(key_data), settings.epochs)
    order = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
    return order.reshape(settings.epochs * settings.minibatches, -1)
