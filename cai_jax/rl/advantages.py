"""Rewards per token, and generalized advantage estimation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_Carry = tuple[jax.Array, jax.Array]


class Rewards(NamedTuple):
    """What each token earns, apart for what each part is credited to; float32 [b, t]."""

    score_bt: jax.Array  # on the last judged token of each response
    penalty_bt: jax.Array  # for leaving the reference, on every token


def token_rewards(
    scores_b: jax.Array,
    logprobs_bt: jax.Array,
    reference_bt: jax.Array,
    mask_bt: jax.Array,
    judged_bt: jax.Array,
    kl_coef: jax.Array,
) -> Rewards:
    """The KL penalty on every token, and the score on the last one that was judged.

    Args:
      scores_b: float32 score of each response.
      logprobs_bt: log-probabilities under the policy that sampled, in nats.
      reference_bt: log-probabilities under the reference, in nats.
      mask_bt: 1 on response tokens, else 0.
      judged_bt: 1 on those that the score is of.
      kl_coef: scalar, reward per nat.
    """
    penalty_bt = -kl_coef * (logprobs_bt - reference_bt) * mask_bt
    time = jnp.arange(mask_bt.shape[1])
    last_b = jnp.max(jnp.where(judged_bt > 0, time, -1), axis=1)
    is_last_bt = (time[None] == last_b[:, None]).astype(jnp.float32)
    score_bt = is_last_bt * scores_b[:, None].astype(jnp.float32)
    return Rewards(score_bt, penalty_bt.astype(jnp.float32))


def generalized_advantages(
    rewards_bt: jax.Array, values_bt: jax.Array, mask_bt: jax.Array, gamma: float, lam: float
) -> jax.Array:
    """Advantages [b, t] (Schulman et al. 2016, equation 16), 0 outside the mask.

    Tokens outside the mask are skipped: the next token of a token is the next one in the mask. The
    value after the last token is 0.

    Args:
      rewards_bt: per token.
      values_bt: of the value function, before each token.
      mask_bt: 1 on response tokens, else 0.
      gamma: discount per token.
      lam: lambda of the estimator.
    """

    def step(
        carry: _Carry, token: tuple[jax.Array, jax.Array, jax.Array]
    ) -> tuple[_Carry, jax.Array]:
        advantage_next_b, value_next_b = carry
        reward_b, value_b, mask_b = token
        delta_b = reward_b + gamma * value_next_b - value_b
        advantage_b = delta_b + gamma * lam * advantage_next_b
        carry = (
            jnp.where(mask_b, advantage_b, advantage_next_b),
            jnp.where(mask_b, value_b, value_next_b),
        )
        return carry, jnp.where(mask_b, advantage_b, 0.0)

    start = (jnp.zeros(rewards_bt.shape[0]), jnp.zeros(rewards_bt.shape[0]))
    inputs = (rewards_bt.T, values_bt.T, mask_bt.T > 0)
    return jax.lax.scan(step, start, inputs, reverse=True)[1].T
