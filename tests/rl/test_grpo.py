"""GRPO against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
from rl_numbers import CONSTANTS, experience_of, policy_loss_golden, rewards_of

from cai_jax.rl.grpo import GRPO
from cai_jax.rl.updates import clipped_policy_loss

THREE = CONSTANTS | {"samples_per_prompt": 3}


def credit(rewards, mask):
    rewards = rewards_of(rewards * mask, 0 * mask)
    return np.asarray(GRPO(**THREE).credit(rewards, None, *2 * [jnp.asarray(mask)])[0])


def test_credit_is_normalised_within_a_prompt():
    rng = np.random.default_rng(0)
    rewards, mask = rng.normal(size=(6, 5)), rng.integers(2, size=(6, 5)).astype(float)
    total = (rewards * mask).sum(axis=1).reshape(2, 3)
    spread = total.std(axis=1, ddof=1, keepdims=True) + 1e-4
    wanted = ((total - total.mean(axis=1, keepdims=True)) / spread).reshape(6, 1) * mask
    np.testing.assert_allclose(credit(rewards, mask), wanted, atol=1e-4)


def test_responses_that_earn_alike_teach_nothing():
    found = credit(np.full((3, 1), 0.7), np.ones((3, 1)))
    np.testing.assert_array_equal(found, np.zeros((3, 1)))


def test_scale_and_offset_of_a_prompts_scores_do_not_matter():
    rng = np.random.default_rng(1)
    rewards, mask = rng.normal(size=(3, 4)), np.ones((3, 4))
    np.testing.assert_allclose(credit(5 * rewards + 1, mask), credit(rewards, mask), rtol=2e-3)


def test_loss_and_gradient_are_their_formulas():
    batch, new = experience_of(np.random.default_rng(2))
    rewards = np.random.default_rng(3).normal(size=new.shape)
    grpo = GRPO(**CONSTANTS | {"samples_per_prompt": 4})
    rewards = rewards_of(rewards, np.zeros(new.shape))
    advantages, _ = grpo.credit(rewards, None, batch.mask_bn, batch.judged_bn)
    batch = batch._replace(advantages_bn=advantages)
    loss, grad = jax.value_and_grad(
        lambda x: jnp.sum(clipped_policy_loss(x, batch, 0.2)[0] * batch.mask_bn)
    )(jnp.asarray(new, jnp.float32))
    wanted, wanted_grad = policy_loss_golden(batch, new, 0.2)
    np.testing.assert_allclose(loss, wanted, rtol=1e-5)
    np.testing.assert_allclose(grad, wanted_grad, atol=1e-5)
