"""REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cai_jax.models.decoder import Decoder
from cai_jax.rl.advantages import Rewards
from cai_jax.rl.updates import PolicyGradient


@dataclass(frozen=True, kw_only=True)
class RLOO(PolicyGradient):
    """Every judged token of a response has one advantage, and there is no value function."""

    module = Decoder

    def __post_init__(self) -> None:
        if self.samples_per_prompt < 2:
            raise ValueError(
                f"samples_per_prompt: {self.samples_per_prompt}, but responses are compared with "
                "others to their prompt; set it to at least 2"
            )

    def credit(
        self,
        rewards: Rewards,
        values_bn: jax.Array | None,
        mask_bn: jax.Array,
        judged_bn: jax.Array,
    ) -> tuple[jax.Array, None]:
        """What a response earns less the mean of the other responses to its prompt.

        Of the score judged tokens alone are credited; of the KL penalties, all.
        """
        score_pk, penalty_pk = (self._totals(part) for part in rewards)
        scale_p1 = self.scale(score_pk + penalty_pk)
        compare = lambda x: ((x - jnp.mean(x, axis=1, keepdims=True)) * scale_p1).reshape(-1, 1)
        return compare(score_pk) * judged_bn + compare(penalty_pk) * mask_bn, None

    def scale(self, returns_pk: jax.Array) -> jax.Array | float:
        """Makes of distances to a group's mean, its own response included, advantages."""
        return self.samples_per_prompt / (self.samples_per_prompt - 1)

    def _totals(self, rewards_bn: jax.Array) -> jax.Array:
        """Sums [p, k] over the tokens of the k responses to each of p prompts."""
        return jnp.sum(rewards_bn, axis=1).reshape(-1, self.samples_per_prompt)
