"""RLOO against NumPy in float64, and through the loop."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rl_numbers import CONSTANTS, experience_of, policy_loss_golden, rewards_of

from cai_jax.rl.rloo import RLOO
from cai_jax.rl.updates import clipped_policy_loss


def test_credit_leaves_one_out():
    rng = np.random.default_rng(0)
    score, penalty = rng.normal(size=(2, 6, 5))
    mask = np.arange(5) < rng.integers(1, 6, size=(6, 1))
    found, returns = RLOO(**CONSTANTS | {"samples_per_prompt": 3}).credit(
        rewards_of(score * mask, penalty * mask), None, jnp.asarray(mask), jnp.asarray(mask)
    )
    total = ((score + penalty) * mask).sum(axis=1)
    wanted = np.zeros((6, 5))
    for row in range(6):
        group = range(3 * (row // 3), 3 * (row // 3) + 3)
        others = np.mean([total[other] for other in group if other != row])
        wanted[row] = (total[row] - others) * mask[row]
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert returns is None


def test_advantages_of_a_prompt_sum_to_zero():
    rewards = rewards_of(*np.random.default_rng(1).normal(size=(2, 8, 1)))
    ones = jnp.ones((8, 1))
    found, _ = RLOO(**CONSTANTS | {"samples_per_prompt": 4}).credit(rewards, None, ones, ones)
    np.testing.assert_allclose(found.reshape(2, 4).sum(axis=1), 0, atol=1e-5)


def test_loss_and_gradient_are_their_formulas():
    batch, new = experience_of(np.random.default_rng(2))
    loss, grad = jax.value_and_grad(
        lambda x: jnp.sum(clipped_policy_loss(x, batch, 0.2)[0] * batch.mask_bn)
    )(jnp.asarray(new, jnp.float32))
    wanted, wanted_grad = policy_loss_golden(batch, new, 0.2)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(grad, wanted_grad, atol=1e-5)


def test_a_single_sample_is_refused():
    with pytest.raises(ValueError, match=r"samples_per_prompt: 1, .* at least 2"):
        RLOO(**CONSTANTS)
