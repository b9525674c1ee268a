"""Rewards per token, and generalized advantage estimation."""

import jax
import jax.numpy as jnp


def token_rewards(
    scores_b: jax.Array,
    logprobs_bt: jax.Array,
    reference_bt: jax.Array,
    mask_bt: jax.Array,
    kl_coef: jax.Array,
) -> jax.Array:
    """Float32 [b, t]: the KL penalty on every token, the score once, on the last real one.

    Args:
      scores_b: float32 score of each whole response.
      logprobs_bt: of the policy that sampled.
      reference_bt: of the reference.
      mask_bt: 1 on response tokens.
      kl_coef: scalar, reward a nat.
    """
    penalty = -kl_coef * (logprobs_bt - reference_bt) * mask_bt
    time = jnp.arange(mask_bt.shape[1])
    last_b = jnp.max(jnp.where(mask_bt > 0, time, -1), axis=1)
    on_last = (time[None] == last_b[:, None]).astype(jnp.float32)
    return penalty.astype(jnp.float32) + on_last * scores_b[:, None].astype(jnp.float32)


def generalized_advantages(
    rewards_bt: jax.Array, values_bt: jax.Array, mask_bt: jax.Array, gamma: float, lam: float
) -> jax.Array:
    """Advantages [b, t] (Schulman et al. 2016, equation 16), 0 outside the mask.

    Tokens outside the mask are stepped over: what follows them counts as following the token
    before. Nothing follows the last token, so the value after it is 0.
    """

    def step(following, now):
        advantage_next, value_next = following
        reward, value, mask = now
        advantage = reward + gamma * value_next - value + gamma * lam * advantage_next
        kept = (jnp.where(mask, advantage, advantage_next), jnp.where(mask, value, value_next))
        return kept, jnp.where(mask, advantage, 0.0)

    start = (jnp.zeros(rewards_bt.shape[0]), jnp.zeros(rewards_bt.shape[0]))
    inputs = (rewards_bt.T, values_bt.T, mask_bt.T > 0)
    return jax.lax.scan(step, start, inputs, reverse=True)[1].T
