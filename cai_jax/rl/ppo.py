"""PPO (Schulman et al. 2017) on whole responses, with a value function and advantages a token."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cai_jax.learning.losses import Sums
from cai_jax.models.heads import PolicyWithValue
from cai_jax.rl.advantages import generalized_advantages
from cai_jax.rl.masked import whiten
from cai_jax.rl.updates import Experience, clipped_policy_loss, policy_outputs


@dataclass(frozen=True, kw_only=True)
class PPO:
    """Constants of the update; see ``OnlineAlgorithm``."""

    prompt_tokens: int
    temperature: float
    gamma: float
    lam: float  # of generalized advantage estimation
    clip_ratio: float
    clip_value: float
    value_coef: float
    entropy_coef: float
    epochs: int
    minibatches: int
    micro_batches: int
    samples_per_prompt: int = 1
    module = PolicyWithValue

    def credit(
        self, rewards_bt: jax.Array, values_bt: jax.Array, mask_bt: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        """Generalized advantages, whitened over the batch, and unwhitened returns."""
        advantages = generalized_advantages(rewards_bt, values_bt, mask_bt, self.gamma, self.lam)
        return whiten(advantages, mask_bt), (advantages + values_bt) * mask_bt

    def loss_sum(
        self, model: PolicyWithValue, batch: Experience[jax.Array]
    ) -> tuple[jax.Array, Sums]:
        """Clipped surrogate plus clipped value loss minus entropy bonus, summed over tokens."""
        logprobs, entropy, values = policy_outputs(
            model, batch.tokens_bt, batch.segments_bt, batch.trunk_btd, self, remat=True
        )
        policy_loss, sums = clipped_policy_loss(logprobs, batch, self.clip_ratio)
        value_loss = clipped_value_loss(values, batch.values_bt, batch.returns_bt, self.clip_value)
        loss = policy_loss + self.value_coef * value_loss - self.entropy_coef * entropy
        total = lambda x: jnp.sum(x * batch.mask_bt)
        return total(loss), sums | {"value_loss": total(value_loss)}


def clipped_value_loss(values: Any, old_values: Any, returns: Any, clip: float) -> jax.Array:
    """Half the larger of the squared errors with and without clipping to the old values."""
    clipped = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (clipped - returns) ** 2)
