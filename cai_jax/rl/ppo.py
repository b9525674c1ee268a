"""PPO (Schulman et al. 2017) on whole responses, with a value function and advantages a token."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from cai_jax.learning.losses import Sums
from cai_jax.models.heads import PolicyWithValue
from cai_jax.rl.advantages import Rewards, generalized_advantages
from cai_jax.rl.masked import whiten
from cai_jax.rl.updates import Experience, PolicyGradient


@dataclass(frozen=True, kw_only=True)
class PPO(PolicyGradient):
    """Constants of PPO, besides those that policy gradients share."""

    gamma: float  # discount a token
    lam: float  # of generalized advantage estimation
    clip_value: float  # values are clipped to those of the sampler +- this
    value_coef: float  # weight of the value loss
    module = PolicyWithValue

    def credit(
        self,
        rewards: Rewards,
        values_bn: jax.Array | None,
        mask_bn: jax.Array,
        judged_bn: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Generalized advantages, whitened over the batch, and unwhitened returns.

        After the last judged token there is no score to come, so the value is 0, as it is after
        the end: those tokens are credited with their own KL penalties and nothing else.
        """
        assert values_bn is not None  # of PolicyWithValue
        values_bn = values_bn * judged_bn
        earned_bn = rewards.score_bn + rewards.penalty_bn
        advantages = generalized_advantages(earned_bn, values_bn, mask_bn, self.gamma, self.lam)
        return whiten(advantages, mask_bn, judged_bn), (advantages + values_bn) * judged_bn

    def value_loss(self, values_bn: jax.Array | None, batch: Experience) -> tuple[jax.Array, Sums]:
        """The clipped value loss, on judged tokens."""
        loss = clipped_value_loss(values_bn, batch.values_bn, batch.returns_bn, self.clip_value)
        loss = loss * batch.judged_bn
        return self.value_coef * loss, {"value_loss": jnp.sum(loss * batch.mask_bn)}


def clipped_value_loss(values: Any, old_values: Any, returns: Any, clip: float) -> jax.Array:
    """Half the larger of the squared errors with and without clipping to the old values."""
    clipped = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (clipped - returns) ** 2)
