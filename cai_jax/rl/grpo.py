"""Group relative policy optimisation (Shao et al. 2024, section 4.1), tokens weighing alike."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cai_jax.rl.rloo import RLOO, group_returns

EPSILON = 1e-4  # added to a group's deviation: where all are alike, nothing is learned


@dataclass(frozen=True, kw_only=True)
class GRPO(RLOO):
    """As RLOO, but against the mean of the whole group, in its standard deviations."""

    def credit(
        self, rewards_bt: jax.Array, values_bt: jax.Array | None, mask_bt: jax.Array
    ) -> tuple[jax.Array, None]:
        """A response's return, normalised over the responses to its prompt."""
        returns_pk = group_returns(rewards_bt, mask_bt, self.samples_per_prompt)
        mean_p1 = jnp.mean(returns_pk, axis=1, keepdims=True)
        std_p1 = jnp.std(returns_pk, axis=1, keepdims=True, ddof=1)
        advantages_pk = (returns_pk - mean_p1) / (std_p1 + EPSILON)
        return advantages_pk.reshape(-1, 1) * mask_bt, None
