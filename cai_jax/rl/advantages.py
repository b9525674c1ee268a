"""Rewards per token, and generalized advantage estimation."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

_Carry = tuple[jax.Array, jax.Array]


class Rewards(NamedTuple):
    """What each token earns, apart for what each part is credited to; float32 [b, n]."""

    score_bn: jax.Array  # on the last judged token of each response
    penalty_bn: jax.Array  # for leaving the reference, on every token


def token_rewards(
    scores_b: jax.Array,
    logprobs_bn: jax.Array,
    reference_bn: jax.Array,
    mask_bn: jax.Array,
    judged_bn: jax.Array,
    kl_coef: jax.Array,
) -> Rewards:
    """The KL penalty on every token, and the score on the last one that was judged.

    Args:
      scores_b: float32 score of each response.
      logprobs_bn: log-probabilities under the policy that sampled, in nats.
      reference_bn: log-probabilities under the reference, in nats.
      mask_bn: 1 on response tokens, else 0.
      judged_bn: 1 on those that the score is of.
      kl_coef: scalar, reward per nat.
    """
    penalty_bn = -kl_coef * (logprobs_bn - reference_bn) * mask_bn
    time = jnp.arange(mask_bn.shape[1])
    last_b = jnp.max(jnp.where(judged_bn > 0, time, -1), axis=1)
    is_last_bn = (time[None] == last_b[:, None]).astype(jnp.float32)
    score_bn = is_last_bn * scores_b[:, None].astype(jnp.float32)
    return Rewards(score_bn, penalty_bn.astype(jnp.float32))


def generalized_advantages(
    rewards_bn: jax.Array, values_bn: jax.Array, mask_bn: jax.Array, gamma: float, lam: float
) -> jax.Array:
    """Advantages [b, n] (Schulman et al. 2016, equation 16), 0 outside the mask.

    Tokens outside the mask are skipped: the next token of a token is the next one in the mask. The
    value after the last token is 0.

    Args:
      rewards_bn: per token.
      values_bn: of the value function, before each token.
      mask_bn: 1 on response tokens, else 0.
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

    start = (jnp.zeros(rewards_bn.shape[0]), jnp.zeros(rewards_bn.shape[0]))
    inputs = (rewards_bn.T, values_bn.T, mask_bn.T > 0)
    return jax.lax.scan(step, start, inputs, reverse=True)[1].T
