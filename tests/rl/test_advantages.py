"""Rewards and advantages against NumPy, written out step by step from the papers."""

import jax.numpy as jnp
import numpy as np
import pytest
from rl_setting import gae_by_hand

from cai_jax.rl.advantages import generalized_advantages, token_rewards

RNG = np.random.default_rng(0)


def test_rewards_land_on_the_last_real_token_as_floats():
    # [a, b, EOS, PAD] after one prompt token; and a truncated response without padding.
    mask = jnp.array([[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]], jnp.float32)
    logprobs = jnp.array([[0, -1.0, -2.0, -0.5, -9.0], [0, -1.0, -1.0, -1.0, -1.0]])
    reference = jnp.array([[0, -1.5, -1.0, -0.5, -3.0], [0, -1.0, -1.0, -1.0, -2.0]])
    rewards = token_rewards(jnp.array([0.7, -0.3]), logprobs, reference, mask, 0.1)
    expected = [[0, -0.05, 0.1, 0.7, 0], [0, 0, 0, 0, -0.3 - 0.1]]
    np.testing.assert_allclose(rewards, expected, atol=1e-6)
    assert rewards.dtype == jnp.float32


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_generalized_advantages(gamma, lam):
    rewards, values = RNG.normal(size=(2, 3, 9))
    mask = np.array([[0, 0, 1, 1, 1, 1, 1, 0, 0], [1] * 9, [0, 1, 1, 0, 0, 1, 1, 1, 0]])
    ours = generalized_advantages(*map(jnp.asarray, (rewards, values, mask)), gamma, lam)
    np.testing.assert_allclose(ours, gae_by_hand(rewards, values, mask, gamma, lam), atol=1e-5)
