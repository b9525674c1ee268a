"""REINFORCE with a leave-one-out baseline (Kool et al. 2019; Ahmadian et al. 2024)."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cai_jax.models.decoder import Decoder
from cai_jax.rl.updates import PolicyGradient


@dataclass(frozen=True, kw_only=True)
class RLOO(PolicyGradient):
    """Every token of a response has one advantage, and there is no value function."""

    module = Decoder

    def __post_init__(self) -> None:
        if self.samples_per_prompt < 2:
            raise ValueError(
                f"samples_per_prompt: {self.samples_per_prompt}, but responses are compared with "
                "others to their prompt; set it to at least 2"
            )

    def credit(
        self, rewards_bt: jax.Array, values_bt: jax.Array | None, mask_bt: jax.Array
    ) -> tuple[jax.Array, None]:
        """A response's return less the mean return of the other responses to its prompt."""
        returns_pk = group_returns(rewards_bt, mask_bt, self.samples_per_prompt)
        others_pk = jnp.sum(returns_pk, axis=1, keepdims=True) - returns_pk
        advantages_pk = returns_pk - others_pk / (self.samples_per_prompt - 1)
        return advantages_pk.reshape(-1, 1) * mask_bt, None


def group_returns(rewards_bt: jax.Array, mask_bt: jax.Array, samples: int) -> jax.Array:
    """Returns [p, k] of the k responses to each of p prompts: score and KL penalties, summed."""
    return jnp.sum(rewards_bt * mask_bt, axis=1).reshape(-1, samples)
