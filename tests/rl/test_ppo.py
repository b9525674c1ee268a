"""PPO against NumPy, written out step by step from the paper."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import nnx
from rl_setting import ALGORITHM, Setting, gae_by_hand

from cai_jax.learning.optimizers import make_optimizer
from cai_jax.rl.advantages import token_rewards
from cai_jax.rl.ppo import clipped_value_loss
from cai_jax.rl.updates import policy_outputs

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("clip", [0.2, 0.05])
def test_clipped_value_loss_and_its_gradient(clip):
    values, old, returns = RNG.normal(size=(3, 40))
    values[:10] = old[:10] + clip / 2  # inside the clip range
    plain, clipped = values - returns, old + np.clip(values - old, -clip, clip) - returns
    expected = 0.5 * np.maximum(plain**2, clipped**2)
    ours = clipped_value_loss(values, old, returns, clip)
    np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=1e-6)
    grad = jax.grad(lambda v: clipped_value_loss(v, old, returns, clip).sum())(jnp.asarray(values))
    moves = (plain**2 > clipped**2) | (np.abs(values - old) < clip)
    assert 10 <= moves.sum() < 40
    np.testing.assert_allclose(grad, np.where(moves, plain, 0.0), atol=1e-5)


def test_value_head_starts_at_zero(mesh):
    experience, _ = Setting(mesh).prepare(Setting(mesh).rollout(0))
    assert not np.any(experience.values_bn)


def test_returns_use_unwhitened_advantages(mesh):
    setting = Setting(mesh)
    rollout = setting.rollout(0)
    experience, _ = setting.prepare(rollout)
    mask, judged = rollout.mask_bn, rollout.judged_bn
    logprobs = experience.logprobs_bn
    score, penalty = token_rewards(rollout.scores_b, logprobs, logprobs, mask, judged, 0.0)
    assert not np.any(penalty)
    values = np.asarray(experience.values_bn) * judged
    by_hand = gae_by_hand(np.asarray(score), values, mask, 1.0, 0.95)
    np.testing.assert_allclose(experience.returns_bn, (by_hand + values) * judged, atol=1e-4)
    advantages = np.asarray(experience.advantages_bn)
    np.testing.assert_allclose(advantages[judged > 0].mean(), 0, atol=1e-4)


def narrowed(experience, rows, left, response):
    """Some rows, without the first columns, and of responses the first ones alone."""
    whole, last = experience.tokens_bt.shape[1], experience.mask_bn.shape[1]
    columns = {whole: slice(left, whole - last + response), last: slice(response)}

    def cut(x):
        return x[rows, columns[x.shape[1]]]

    return jax.tree.map(cut, experience)


def test_ppo_loss_rows_do_not_feel_their_padding(mesh):
    setting = Setting(mesh)
    experience, _ = setting.prepare(setting.rollout(0))
    model = nnx.merge(setting.trainable.graph, setting.state.params, setting.trainable.frozen)
    some = jax.tree.map(lambda x: x[np.array([0, 3, 5])], experience)
    whole = ALGORITHM.loss_sum(model, some)[0]
    rows = []
    for b in (0, 3, 5):
        real = np.flatnonzero(np.asarray(experience.segments_bt[b]))
        row = narrowed(experience, slice(b, b + 1), real[0], real[-1] + 1 - 4)
        rows.append(ALGORITHM.loss_sum(model, row)[0])
    np.testing.assert_allclose(whole, sum(rows), atol=1e-3)


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
def test_ppo_loss_is_its_formula(mesh, entropy_coef):
    """Loss and metrics from the model's outputs, in float64, token by token."""
    setting = Setting(mesh)
    experience, _ = setting.prepare(setting.rollout(0), 0.1)
    setting.update(experience)  # so that ratios differ from 1
    algorithm = replace(ALGORITHM, entropy_coef=entropy_coef, value_coef=0.7, clip_ratio=0.01)
    model = nnx.merge(setting.trainable.graph, setting.state.params, setting.trainable.frozen)
    e = experience
    outputs = policy_outputs(model, e.tokens_bt, e.segments_bt, None, 6, algorithm.temperature)
    new, entropy, values = (np.asarray(x, np.float64) for x in outputs)
    expected = dict.fromkeys(
        ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "ratio", "weight"), 0.0
    )
    loss = 0.0
    for b, t in np.argwhere(np.asarray(e.mask_bn) > 0):
        log_ratio = new[b, t] - float(e.logprobs_bn[b, t])
        ratio, advantage = np.exp(log_ratio), float(e.advantages_bn[b, t])
        policy_loss = -min(ratio * advantage, np.clip(ratio, 0.99, 1.01) * advantage)
        old, wanted = float(e.values_bn[b, t]), float(e.returns_bn[b, t])
        clipped = old + np.clip(values[b, t] - old, -0.2, 0.2)
        value_loss = 0.5 * max((values[b, t] - wanted) ** 2, (clipped - wanted) ** 2)
        value_loss *= float(e.judged_bn[b, t])
        expected["policy_loss"] += policy_loss
        expected["value_loss"] += value_loss
        expected["approx_kl"] += ratio - 1 - log_ratio
        expected["clip_fraction"] += abs(ratio - 1) > 0.01
        expected["ratio"] += ratio
        expected["weight"] += 1
        loss += policy_loss + 0.7 * value_loss - entropy_coef * entropy[b, t]
    ours, sums = algorithm.loss_sum(model, e)
    assert 0 < expected["clip_fraction"] < expected["weight"]
    np.testing.assert_allclose(ours, loss, rtol=1e-4)
    for name, value in expected.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_entropy_costs_nothing_without_a_coefficient(mesh):
    """Of the update's exponentials, those of every logit that only entropy needs are left out."""
    setting = Setting(mesh)
    experience, _ = setting.prepare(setting.rollout(0))

    def exponentials(entropy_coef):
        algorithm = replace(ALGORITHM, entropy_coef=entropy_coef)

        def loss(params):
            model = nnx.merge(setting.trainable.graph, params, setting.trainable.frozen)
            return algorithm.loss_sum(model, experience)[0]

        compiled = jax.jit(jax.grad(loss)).lower(setting.state.params).compile()
        return compiled.cost_analysis()["transcendentals"]

    assert exponentials(0.0) + experience.mask_bn.sum() * TINY.vocab_size <= exponentials(0.1)


def test_values_do_not_divide_by_the_temperature(mesh):
    setting = Setting(mesh)
    model = nnx.merge(setting.trainable.graph, setting.state.params, setting.trainable.frozen)
    model.value_head.kernel.set_value(jnp.linspace(-1, 1, TINY.d_model))
    rollout = setting.rollout(0)
    outputs = [
        policy_outputs(
            *(model, rollout.tokens_bt, rollout.segments_bt, None),
            *(rollout.mask_bn.shape[1], temperature),
        )
        for temperature in (0.5, 1.0)
    ]
    np.testing.assert_array_equal(outputs[0][2], outputs[1][2])
    assert np.abs(np.asarray(outputs[0][2])).max() > 0.1
    assert np.abs(np.asarray(outputs[0][0] - outputs[1][0])).max() > 0.1


def explained(returns, values, mask):
    rest, whole = ((x[mask > 0]).astype(np.float64) for x in (returns - values, returns))
    return 1 - rest.var() / whole.var()


def test_a_value_function_with_a_rate_of_its_own_explains_returns(mesh):
    """At the policy's rate on pods, 1e-6, it explains nothing within 40 updates."""
    after, rollout = {}, None
    for rate in (1e-6, 3e-3):
        setting = Setting(mesh, optimizer=make_optimizer(1e-6, 0, 1.0, 1e-5, 0, rate))
        rollout = rollout or setting.rollout(0)  # the policy hardly moves: it stays its own
        for iteration in range(11):
            experience, stats = setting.prepare(rollout)
            by_hand = explained(
                *map(np.asarray, (experience.returns_bn, experience.values_bn, rollout.judged_bn))
            )
            np.testing.assert_allclose(stats["explained_variance"], by_hand, atol=1e-4)
            setting.update(experience, iteration)
        after[rate] = by_hand
    assert after[1e-6] < 0.01
    assert after[3e-3] > 0.5


def test_ppo_earns_more(mesh):
    setting = Setting(mesh)
    earned = lambda start: np.mean([setting.rollout(start + i).scores_b for i in range(6)])
    before = earned(100)
    for iteration in range(12):
        experience, _ = setting.prepare(setting.rollout(iteration))
        setting.update(experience, iteration)
    assert earned(100) > before + 0.2
