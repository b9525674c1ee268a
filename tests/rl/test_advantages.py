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
    score, penalty = token_rewards(jnp.array([0.7, -0.3]), logprobs, reference, mask, mask, 0.1)
    np.testing.assert_allclose(score, [[0, 0, 0, 0.7, 0], [0, 0, 0, 0, -0.3]], atol=1e-6)
    np.testing.assert_allclose(penalty, [[0, -0.05, 0.1, 0, 0], [0, 0, 0, 0, -0.1]], atol=1e-6)
    assert score.dtype == penalty.dtype == jnp.float32


def test_the_score_lands_on_the_last_judged_token():
    mask, judged = jnp.ones((2, 4)), jnp.array([[1, 1, 0, 0], [1, 1, 1, 1]], jnp.float32)
    scores, logprobs = jnp.array([0.5, -2.0]), jnp.ones((2, 4))
    score, penalty = token_rewards(scores, logprobs, jnp.zeros((2, 4)), mask, judged, 0.25)
    np.testing.assert_array_equal(score, [[0, 0.5, 0, 0], [0, 0, 0, -2]])
    np.testing.assert_array_equal(penalty, np.full((2, 4), -0.25))  # on what follows too


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_generalized_advantages(gamma, lam):
    rewards, values = RNG.normal(size=(2, 3, 9))
    mask = np.array([[0, 0, 1, 1, 1, 1, 1, 0, 0], [1] * 9, [0, 1, 1, 0, 0, 1, 1, 1, 0]])
    ours = generalized_advantages(*map(jnp.asarray, (rewards, values, mask)), gamma, lam)
    np.testing.assert_allclose(ours, gae_by_hand(rewards, values, mask, gamma, lam), atol=1e-5)
