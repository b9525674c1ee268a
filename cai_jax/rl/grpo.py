"""Group relative policy optimisation (Shao et al. 2024, section 4.1), tokens weighing alike."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cai_jax.rl.rloo import RLOO

EPSILON = 1e-4  # added to a group's deviation: where all are alike, nothing is learned


@dataclass(frozen=True, kw_only=True)
class GRPO(RLOO):
    """As RLOO, but against the mean of the whole group, in its standard deviations."""

    def scale(self, returns_pk: jax.Array) -> jax.Array:
        """One over the standard deviation [p, 1] of each group's returns."""
        return 1 / (jnp.std(returns_pk, axis=1, keepdims=True, ddof=1) + EPSILON)
