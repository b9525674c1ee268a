"""What online algorithms share: from a rollout to experience, and updates in minibatches.

1. ``prepare`` recomputes the policy's log-probabilities, adds the KL penalty to the score, and has
   the algorithm give credit to tokens.
2. ``update`` goes over the batch for some epochs in shuffled minibatches.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from cai_jax.learning.logprobs import logprobs_of_hidden
from cai_jax.learning.losses import Sums
from cai_jax.learning.train import TrainState, apply_grads, mean_loss_grads
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue
from cai_jax.parallel.mesh import constrain, join_rows, split_rows
from cai_jax.rl.advantages import Rewards, token_rewards
from cai_jax.rl.kl import kl_estimates
from cai_jax.rl.masked import masked_mean, masked_variance
from cai_jax.rl.rollout import Rollout


class Experience(NamedTuple):
    """A rollout with everything the update reads; fixed during the update."""

    tokens_bt: jax.Array
    segments_bt: jax.Array
    trunk_btd: jax.Array | None  # states below the trained layers, where some are frozen
    mask_bn: jax.Array
    judged_bn: jax.Array
    logprobs_bn: jax.Array
    values_bn: jax.Array | None  # of a value function, where there is one
    advantages_bn: jax.Array
    returns_bn: jax.Array | None  # what the value function is fitted to


@dataclass(frozen=True, kw_only=True)
class PolicyGradient(ABC):
    """An algorithm that clips ratios of probabilities, by its constants; hashable, so static.

    Attributes:
      module: what is trained: a Decoder, or a PolicyWithValue.
      temperature: logits are divided by it, when sampling and in every log-probability.
      samples_per_prompt: consecutive rows of a rollout that answer one prompt.
      epochs: over each rollout.
      minibatches: updates an epoch.
      micro_batches: parts of a minibatch that run one by one.
      clip_ratio: ratios are clipped to 1 +- this.
      entropy_coef: reward per nat of entropy.
    """

    module: ClassVar[type[Decoder] | type[PolicyWithValue]]
    temperature: float
    samples_per_prompt: int
    epochs: int
    minibatches: int
    micro_batches: int
    clip_ratio: float
    entropy_coef: float

    @abstractmethod
    def credit(
        self,
        rewards: Rewards,
        values_bn: jax.Array | None,
        mask_bn: jax.Array,
        judged_bn: jax.Array,
    ) -> tuple[jax.Array, jax.Array | None]:
        """Advantages and, where there is a value function, its returns; [b, n], 0 outside mask.

        What is rewarded is what is credited: on tokens that are not judged, advantages come from
        KL penalties alone, whatever the scores and the values are, but for a positive scale.
        """

    def loss_sum(self, model: Any, batch: Experience) -> tuple[jax.Array, Sums]:
        """Clipped surrogate minus entropy bonus, summed over response tokens; and metrics."""
        logprobs, entropy, values = policy_outputs(
            *(model, batch.tokens_bt, batch.segments_bt, batch.trunk_btd),
            *(batch.mask_bn.shape[1], self.temperature),
            remat=True,
        )
        loss, sums = clipped_policy_loss(logprobs, batch, self.clip_ratio)
        more, more_sums = self.value_loss(values, batch)
        loss = loss + more
        if self.entropy_coef:  # else its gradient, of every logit, would be computed to be void
            loss -= self.entropy_coef * entropy
        return jnp.sum(loss * batch.mask_bn), sums | more_sums

    def value_loss(
        self, values_bn: jax.Array | None, batch: Experience
    ) -> tuple[jax.Array | float, Sums]:
        """What a value function adds to the loss [b, n], and its metrics; nothing without one."""
        return 0.0, {}


def policy_outputs(
    model: Decoder | PolicyWithValue,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    trunk_btd: jax.Array | None,
    response: int,
    temperature: float,
    remat: bool = False,
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Log-probability, entropy and value [b, n] of each response token, as seen from before it.

    Args:
      model: the policy, or the reference.
      tokens_bt: int32, of which the last ``response`` columns are responses.
      segments_bt: 1 on real tokens.
      trunk_btd: states below the trained layers; None computes them.
      response: columns n; nothing is projected to the vocabulary but what predicts them.
      temperature: that logits are divided by.
      remat: see ``Decoder.hidden``.
    """
    decoder, start = decoder_of(model), tokens_bt.shape[1] - response
    hidden_btd = decoder.hidden(tokens_bt, segments_bt, remat, trunk_btd)
    scored = logprobs_of_hidden(decoder, hidden_btd, tokens_bt, segments_bt, temperature, start)
    values_bn = None
    if isinstance(model, PolicyWithValue):
        values_bn = model.value_head(hidden_btd[:, start - 1 : -1])
    return scored.logprobs_bt[:, start:], scored.entropy_bt[:, start:], values_bn


def decoder_of(model: Decoder | PolicyWithValue) -> Decoder:
    """The decoder of a policy, with a value function or without."""
    return model.decoder if isinstance(model, PolicyWithValue) else model


@partial(jax.jit, static_argnames=("policy_graph", "reference_graph", "algorithm"))
def prepare(
    policy_params: nnx.State,
    frozen: nnx.State,
    reference_params: nnx.State,
    rollout: Rollout,
    kl_coef: jax.Array,
    *,
    policy_graph: nnx.GraphDef,
    reference_graph: nnx.GraphDef,
    algorithm: PolicyGradient,
) -> tuple[Experience, Sums]:
    """From a rollout to what the update reads, and statistics of the rollout.

    Old log-probabilities are recomputed here, by the trainer, so that the first ratio is 1; how
    far the sampler's own differ is in the statistics. What both models freeze is run once.

    Raises:
      ValueError: policy and reference freeze different numbers of layers.
    """
    tokens, segments, mask = rollout.tokens_bt, rollout.segments_bt, rollout.mask_bn
    judged = rollout.judged_bn
    policy = nnx.merge(policy_graph, policy_params, frozen)
    decoder = decoder_of(policy)
    reference_model = nnx.merge(reference_graph, reference_params)
    if reference_model.frozen_layers != decoder.frozen_layers:
        raise ValueError(
            f"reference_graph freezes {reference_model.frozen_layers} layers, policy_graph "
            f"{decoder.frozen_layers}: they share what is frozen, so both must be alike"
        )

    def outputs(rows: tuple[jax.Array, jax.Array]) -> tuple[jax.Array | None, ...]:
        tokens, segments = rows
        trunk = decoder.trunk(tokens, segments) if decoder.frozen_layers else None
        rows_of = (tokens, segments, trunk, mask.shape[1], algorithm.temperature)
        ours = policy_outputs(policy, *rows_of)
        theirs, _, _ = policy_outputs(reference_model, *rows_of)
        return trunk, *ours, theirs

    # As many rows at once as the update takes: bfloat16 matmuls round by their shape.
    parts = algorithm.minibatches * algorithm.micro_batches
    mapped = jax.lax.map(outputs, split_rows((tokens, segments), parts))
    trunk, logprobs, entropy, values, reference = join_rows(mapped)
    rewards = token_rewards(rollout.scores_b, logprobs, reference, mask, judged, kl_coef)
    advantages, returns = algorithm.credit(rewards, values, mask, judged)
    experience = Experience(
        tokens_bt=tokens,
        segments_bt=segments,
        trunk_btd=trunk,
        mask_bn=mask,
        judged_bn=judged,
        logprobs_bn=logprobs,
        values_bn=values,
        advantages_bn=advantages,
        returns_bn=returns,
    )
    k1, _, k3 = kl_estimates(logprobs, reference)
    sampler_gap = jnp.abs(logprobs - rollout.sampler_logprobs_bn) * mask
    stats = {
        "score": jnp.mean(rollout.scores_b),
        "kl_k1": jnp.mean(jnp.sum(k1 * mask, axis=1)),
        "kl_k3": jnp.mean(jnp.sum(k3 * mask, axis=1)),
        "response_tokens": jnp.mean(jnp.sum(mask, axis=1)),
        "entropy": masked_mean(entropy, mask),
        "sampler_gap_mean": masked_mean(sampler_gap, mask),
        "sampler_gap_max": jnp.max(sampler_gap),
    }
    if values is not None and returns is not None:
        left = masked_variance(returns - values, judged) / (masked_variance(returns, judged) + 1e-8)
        stats |= {
            "value": masked_mean(values, judged),
            "return": masked_mean(returns, judged),
            "explained_variance": 1.0 - left,
        }
    return jax.tree.map(_pin_rows, experience), stats


@partial(jax.jit, static_argnames=("graph", "optimizer", "algorithm"), donate_argnames=("state",))
def update(
    state: TrainState,
    frozen: nnx.State,
    experience: Experience,
    key_data: jax.Array,
    *,
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    algorithm: PolicyGradient,
) -> tuple[TrainState, Sums]:
    """All epochs of one iteration.

    Args:
      state: policy, value function and optimizer.
      frozen: parameters that are not trained.
      experience: from ``prepare``.
      key_data: uint32 [2], fresh each iteration; shuffles.
      graph: of what is trained.
      optimizer: what ``state`` was made with.
      algorithm: constants; minibatches divide the batch, micro-batches divide a minibatch.

    Returns:
      The state, and metrics with one entry a minibatch, in order; ``skipped`` is 1 where one was
      left out because it was not finite.
    """
    rows = experience.tokens_bt.shape[0]

    def minibatch(state: TrainState, indices: jax.Array) -> tuple[TrainState, Sums]:
        batch = jax.tree.map(lambda x: _pin_rows(x[indices]), experience)
        grads, metrics = mean_loss_grads(
            algorithm.loss_sum, graph, state.params, frozen, batch, algorithm.micro_batches
        )
        return apply_grads(state, grads, metrics, optimizer)

    return jax.lax.scan(minibatch, state, minibatch_rows(key_data, rows, algorithm))


def _pin_rows(x: jax.Array) -> jax.Array:
    return constrain(x, "batch", *(None,) * (x.ndim - 1))


def minibatch_rows(key_data: jax.Array, rows: int, algorithm: PolicyGradient) -> jax.Array:
    """Int32 [epochs * minibatches, rows / minibatches]: every epoch a shuffle of its own."""
    keys = jax.random.split(jax.random.wrap_key_data(key_data), algorithm.epochs)
    order = jax.vmap(lambda key: jax.random.permutation(key, rows))(keys)
    return order.reshape(algorithm.epochs * algorithm.minibatches, -1)


def clipped_policy_loss(
    logprobs_bn: jax.Array, batch: Experience, clip_ratio: float
) -> tuple[jax.Array, Sums]:
    """Clipped surrogate loss [b, n], and sums over response tokens that say how far it moved."""
    log_ratio = jnp.where(batch.mask_bn > 0, logprobs_bn - batch.logprobs_bn, 0.0)
    ratio = jnp.exp(log_ratio)
    low, high = 1 - clip_ratio, 1 + clip_ratio
    loss = clipped_surrogate(ratio, batch.advantages_bn, low, high)
    total = lambda x: jnp.sum(x * batch.mask_bn)
    return loss, {
        "policy_loss": total(loss),
        "approx_kl": total(jnp.expm1(log_ratio) - log_ratio),
        "clip_fraction": total(((ratio < low) | (ratio > high)).astype(jnp.float32)),
        "ratio": total(ratio),
        "ratio_error": total(jnp.abs(ratio - 1)),
        "weight": jnp.sum(batch.mask_bn),
    }


def clipped_surrogate(ratio: Any, advantages: Any, low: float, high: float) -> jax.Array:
    """Negative clipped surrogate objective (Schulman et al. 2017, equation 7)."""
    return jnp.maximum(-advantages * ratio, -advantages * jnp.clip(ratio, low, high))
