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
        values_bt: jax.Array | None,
        mask_bt: jax.Array,
        judged_bt: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """Generalized advantages, whitened over the batch, and unwhitened returns.

        After the last judged token there is no score to come, so the value is 0, as it is after
        the end: those tokens are credited with their own KL penalties and nothing else.
        """
        assert values_bt is not None  # of PolicyWithValue
        values_bt = values_bt * judged_bt
        earned_bt = rewards.score_bt + rewards.penalty_bt
        advantages = generalized_advantages(earned_bt, values_bt, mask_bt, self.gamma, self.lam)
        return whiten(advantages, mask_bt, judged_bt), (advantages + values_bt) * judged_bt

    def value_loss(self, values_bt: jax.Array | None, batch: Experience) -> tuple[jax.Array, Sums]:
        """The clipped value loss, on judged tokens."""
        loss = clipped_value_loss(values_bt, batch.values_bt, batch.returns_bt, self.clip_value)
        loss = loss * batch.judged_bt
        return self.value_coef * loss, {"value_loss": jnp.sum(loss * batch.mask_bt)}


def clipped_value_loss(values: Any, old_values: Any, returns: Any, clip: float) -> jax.Array:
    """Half the larger of the squared errors with and without clipping to the old values."""
    clipped = old_values + jnp.clip(values - old_values, -clip, clip)
    return 0.5 * jnp.maximum((values - returns) ** 2, (clipped - returns) ** 2)
