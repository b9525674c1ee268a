"""The RL core against NumPy, written out step by step from the papers."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, at_rest, tiny_decoder
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.learning.logprobs import token_logprobs
from cai_jax.learning.train import init_state, make_optimizer, make_trainable
from cai_jax.models.config import LoRAConfig
from cai_jax.models.heads import PolicyWithValue
from cai_jax.models.io.load import Model
from cai_jax.rl.advantages import generalized_advantages, token_rewards
from cai_jax.rl.kl import AdaptiveKL, kl_estimates
from cai_jax.rl.masked import masked_mean, whiten
from cai_jax.rl.ppo import (
    PPOSettings,
    clipped_surrogate,
    clipped_value_loss,
    minibatch_rows,
    policy_outputs,
    ppo_loss_sum,
    prepare,
    update,
)
from cai_jax.rl.rollout import assemble

RNG = np.random.default_rng(0)


def test_kl_estimates():
    p, q = np.log([0.5, 0.2, 0.3]), np.log([0.25, 0.5, 0.25])
    k1, k2, k3 = kl_estimates(jnp.asarray(p), jnp.asarray(q))
    np.testing.assert_allclose(k1, p - q, rtol=1e-6)
    np.testing.assert_allclose(k2, (p - q) ** 2 / 2, rtol=1e-6)
    np.testing.assert_allclose(k3, np.exp(q - p) - 1 - (q - p), rtol=1e-5)
    exact = np.sum(np.exp(p) * (p - q))
    np.testing.assert_allclose(np.sum(np.exp(p) * np.asarray(k1)), exact, rtol=1e-5)
    np.testing.assert_allclose(np.sum(np.exp(p) * np.asarray(k3)), exact, rtol=1e-5)


def test_adaptive_kl_controller():
    controller = AdaptiveKL(target=6.0, horizon=1000)
    assert controller.update(0.1, 6.0, 100) == 0.1
    np.testing.assert_allclose(controller.update(0.1, 60.0, 100), 0.1 * (1 + 0.2 * 0.1))
    np.testing.assert_allclose(controller.update(0.1, 5.4, 100), 0.1 * (1 - 0.1 * 0.1))
    assert AdaptiveKL(0.0, 1000).update(0.1, 60.0, 100) == 0.1


def test_rewards_land_on_the_last_real_token_as_floats():
    # [a, b, EOS, PAD] after one prompt token; and a truncated response without padding.
    mask = jnp.array([[0, 1, 1, 1, 0], [0, 1, 1, 1, 1]], jnp.float32)
    logprobs = jnp.array([[0, -1.0, -2.0, -0.5, -9.0], [0, -1.0, -1.0, -1.0, -1.0]])
    reference = jnp.array([[0, -1.5, -1.0, -0.5, -3.0], [0, -1.0, -1.0, -1.0, -2.0]])
    rewards = token_rewards(jnp.array([0.7, -0.3]), logprobs, reference, mask, 0.1)
    expected = [[0, -0.05, 0.1, 0.7, 0], [0, 0, 0, 0, -0.3 - 0.1]]
    np.testing.assert_allclose(rewards, expected, atol=1e-6)
    assert rewards.dtype == jnp.float32


def gae_by_hand(rewards, values, mask, gamma, lam):
    out = np.zeros_like(rewards)
    for b in range(len(rewards)):
        real = np.flatnonzero(mask[b])
        for n, t in enumerate(real):
            total = 0.0
            for steps, u in enumerate(real[n:]):
                after = real[n + steps + 1 :]
                value_next = values[b, after[0]] if len(after) else 0.0
                delta = rewards[b, u] + gamma * value_next - values[b, u]
                total += (gamma * lam) ** steps * delta
            out[b, t] = total
    return out


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.99, 0.0)])
def test_generalized_advantages(gamma, lam):
    rewards, values = RNG.normal(size=(2, 3, 9))
    mask = np.array([[0, 0, 1, 1, 1, 1, 1, 0, 0], [1] * 9, [0, 1, 1, 0, 0, 1, 1, 1, 0]])
    ours = generalized_advantages(*map(jnp.asarray, (rewards, values, mask)), gamma, lam)
    np.testing.assert_allclose(ours, gae_by_hand(rewards, values, mask, gamma, lam), atol=1e-5)


NUMBERS = arrays(np.float32, (4, 6), elements=st.floats(-10, 10, width=32))
MASKS = arrays(np.int32, (4, 6), elements=st.integers(0, 1))


@settings(max_examples=100, deadline=None)
@given(NUMBERS, MASKS)
def test_masked_mean_is_over_the_mask(x, mask):
    real = x[mask > 0].astype(np.float64)
    expected = real.mean() if len(real) else 0.0
    np.testing.assert_allclose(masked_mean(x, jnp.asarray(mask)), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(NUMBERS, MASKS, st.booleans())
def test_whitening_is_over_the_mask(x, mask, shift_mean):
    white = np.asarray(whiten(jnp.asarray(x), jnp.asarray(mask), shift_mean))
    assert (white[mask == 0] == 0).all()
    real = x[mask > 0].astype(np.float64)
    if len(real):
        # Of nearly equal numbers float32 loses the variance: there the bound follows from it.
        expected = (real - real.mean()) / np.sqrt(real.var() + 1e-8)
        expected += 0 if shift_mean else real.mean()
        error = 1e-5 * (1 + abs(real).max() / np.sqrt(real.var() + 1e-8))
        np.testing.assert_allclose(white[mask > 0], expected, atol=error)


def test_whitening_is_global_over_devices(mesh8):
    x, mask = RNG.normal(size=(8, 4)), np.ones((8, 4))
    from cai_jax.parallel.mesh import put_batch

    sharded = jax.jit(whiten)(*put_batch((x, mask), mesh8))
    np.testing.assert_allclose(sharded, (x - x.mean()) / x.std(), atol=1e-4)


def test_clipped_surrogate_and_its_gradient():
    ratio = np.array([0.5, 0.9, 1.0, 1.1, 1.5, 0.5, 1.5])
    advantage = np.array([1.0, 1.0, -2.0, 1.0, 1.0, -1.0, -1.0])
    expected = -np.minimum(ratio * advantage, np.clip(ratio, 0.8, 1.2) * advantage)
    np.testing.assert_allclose(clipped_surrogate(ratio, advantage, 0.8, 1.2), expected, rtol=1e-6)
    grad = jax.grad(lambda r: clipped_surrogate(r, advantage, 0.8, 1.2).sum())(jnp.asarray(ratio))
    # Moving further out of the trust region earns nothing; moving back does.
    np.testing.assert_allclose(grad, [-1, -1, 2, -1, 0, 0, 1], atol=1e-6)


def test_surrogate_gradient_in_log_probabilities():
    """d/dlogp of -min(rA, clip(r)A) is -rA, or 0 where clipping holds it."""
    new, old, advantage = RNG.normal(scale=0.4, size=(3, 5, 7))
    ratio = np.exp(new - old)
    held = ((ratio > 1.3) & (advantage > 0)) | ((ratio < 0.8) & (advantage < 0))
    assert 0 < held.sum() < held.size

    def loss(logprobs):
        return clipped_surrogate(jnp.exp(logprobs - old), advantage, 0.8, 1.3).sum()

    expected = np.where(held, 0.0, -ratio * advantage)
    np.testing.assert_allclose(jax.grad(loss)(jnp.asarray(new)), expected, atol=1e-5)


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


def test_assembled_rollout_keeps_prompt_left_and_response_right():
    done = Completion([7, 2], np.array([-1.0, -2.0], np.float32), True)
    rollout = assemble([[5, 6], [4]], [done, done], np.array([0.25, 1.5]), 3, 4)
    np.testing.assert_array_equal(rollout.tokens_bt[0], [0, 5, 6, 7, 2, 0, 0])
    np.testing.assert_array_equal(rollout.segments_bt[1], [0, 0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(rollout.mask_bt[1], [0, 0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(rollout.sampler_logprobs_bt[0], [0, 0, 0, -1, -2, 0, 0])


SETTINGS = PPOSettings(
    prompt_length=4,
    temperature=0.8,
    gamma=1.0,
    lam=0.95,
    clip_ratio=0.2,
    clip_value=0.2,
    value_coef=0.1,
    entropy_coef=0.0,
    epochs=2,
    minibatches=2,
    micro_batches=2,
)


OPTIMIZER = make_optimizer(1e-2, 0, 1.0, 1e-5)  # one, so that all tests compile one update


class Setting:
    """A tiny policy that is rewarded for the lower half of the vocabulary."""

    def __init__(self, mesh, frozen_layers=0):
        self.lora, self.mesh = LoRAConfig(4, 8.0), mesh
        self.base = tiny_decoder()

        def build():
            return PolicyWithValue(TINY, self.lora, jnp.float32, frozen_layers, rngs=nnx.Rngs(0))

        self.reference = at_rest(self.base)
        self.reference_graph = nnx.split(tiny_decoder(frozen_layers=frozen_layers))[0]
        self.trainable = make_trainable(
            build, self.reference.params, self.lora, mesh, decoder_name="decoder"
        )
        self.sampler_graph = nnx.split(tiny_decoder(lora=self.lora))[0]
        self.state = init_state(self.trainable.params, OPTIMIZER)

    def rollout(self, iteration):
        flat = [
            *nnx.to_flat_state(self.state.params),
            *nnx.to_flat_state(self.trainable.frozen),
        ]
        decoder = nnx.from_flat_state([(p[1:], v) for p, v in flat if p[0] == "decoder"])
        prompts = [[1 + i % 5, 2, 3][: 1 + i % 3] for i in range(8)]
        keys = [named_key(0, iteration, i) for i in range(8)]
        sampler = Generator(Model(self.sampler_graph, decoder), self.mesh, [3], 8, 4)
        out = sampler.generate(prompts, keys, 6, Sampling(SETTINGS.temperature))
        # Stops are rare in random models; cut, so that rows differ in length.
        cut = lambda c, n: Completion(c.ids[:n], c.logprobs[:n], c.finished)
        out = [cut(c, 6 - i % 4) for i, c in enumerate(out)]
        scores = np.array(
            [np.mean(np.array(c.ids) < TINY.vocab_size // 2) for c in out], np.float32
        )
        return assemble(prompts, out, scores, 4, 6)

    def prepare(self, rollout, kl_coef=0.0):
        return prepare(
            self.state.params,
            self.trainable.frozen,
            self.reference.params,
            rollout,
            jnp.float32(kl_coef),
            policy_graph=self.trainable.graph,
            reference_graph=self.reference_graph,
            settings=SETTINGS,
        )

    def update(self, experience, iteration=0, settings=SETTINGS):
        self.state, metrics = update(
            self.state,
            self.trainable.frozen,
            experience,
            named_key(0, "shuffle", iteration),
            graph=self.trainable.graph,
            optimizer=OPTIMIZER,
            settings=settings,
        )
        return metrics


def test_first_minibatch_has_ratio_one_and_no_kl(mesh):
    setting = Setting(mesh)
    experience, stats = setting.prepare(setting.rollout(0))
    metrics = setting.update(experience)
    np.testing.assert_allclose(metrics["ratio"][0], 1.0, atol=1e-5)
    np.testing.assert_allclose(metrics["ratio_error"][0], 0.0, atol=1e-5)
    np.testing.assert_allclose(metrics["approx_kl"][0], 0.0, atol=1e-5)
    assert abs(metrics["ratio"][-1] - 1.0) > 1e-5
    assert stats["sampler_gap_max"] < 1e-4  # sampler and trainer agree on the temperature too
    assert abs(stats["kl_k1"]) < 1e-4  # the policy starts at the reference


def test_kl_of_a_moved_policy_is_logged(mesh):
    setting = Setting(mesh)
    rollout = setting.rollout(0)
    experience, _ = setting.prepare(rollout)
    reference = np.asarray(experience.logprobs_bt, np.float64)  # the policy starts there
    for iteration in range(2):
        setting.update(experience, iteration)
    moved, stats = setting.prepare(rollout, 0.1)
    log_ratio = np.asarray(moved.logprobs_bt, np.float64) - reference
    mask = rollout.mask_bt
    k3 = (np.exp(-log_ratio) - 1 + log_ratio) * mask
    np.testing.assert_allclose(stats["kl_k1"], (log_ratio * mask).sum(1).mean(), atol=1e-4)
    np.testing.assert_allclose(stats["kl_k3"], k3.sum(1).mean(), atol=1e-4)
    assert stats["kl_k3"] > 1e-3


def test_value_head_starts_at_zero(mesh):
    experience, _ = Setting(mesh).prepare(Setting(mesh).rollout(0))
    assert not np.any(experience.values_bt)


def test_returns_use_unwhitened_advantages(mesh):
    setting = Setting(mesh)
    rollout = setting.rollout(0)
    experience, _ = setting.prepare(rollout)
    mask = rollout.mask_bt
    rewards = np.asarray(
        token_rewards(rollout.scores_b, experience.logprobs_bt, experience.logprobs_bt, mask, 0.0)
    )
    by_hand = gae_by_hand(rewards, np.asarray(experience.values_bt), mask, 1.0, 0.95)
    np.testing.assert_allclose(
        experience.returns_bt, (by_hand + experience.values_bt) * mask, atol=1e-4
    )
    np.testing.assert_allclose(np.asarray(experience.advantages_bt)[mask > 0].mean(), 0, atol=1e-4)


def test_ppo_loss_rows_do_not_feel_their_padding(mesh):
    setting = Setting(mesh)
    experience, _ = setting.prepare(setting.rollout(0))
    model = nnx.merge(setting.trainable.graph, setting.state.params, setting.trainable.frozen)
    some = jax.tree.map(lambda x: x[np.array([0, 3, 5])], experience)
    whole = ppo_loss_sum(model, some, SETTINGS)[0]
    rows = []
    for b in (0, 3, 5):
        real = np.flatnonzero(np.asarray(experience.segments_bt[b]))
        time = slice(real[0], real[-1] + 1)
        settings = replace(SETTINGS, prompt_length=4 - int(real[0]))
        row = jax.tree.map(lambda x, b=b, time=time: x[b : b + 1, time], experience)
        rows.append(ppo_loss_sum(model, row, settings)[0])
    np.testing.assert_allclose(whole, sum(rows), atol=1e-3)


@pytest.mark.parametrize("entropy_coef", [0.0, 0.3])
def test_ppo_loss_is_its_formula(mesh, entropy_coef):
    """Loss and metrics from the model's outputs, in float64, token by token."""
    setting = Setting(mesh)
    experience, _ = setting.prepare(setting.rollout(0), 0.1)
    setting.update(experience)  # so that ratios differ from 1
    settings = replace(SETTINGS, entropy_coef=entropy_coef, value_coef=0.7, clip_ratio=0.01)
    model = nnx.merge(setting.trainable.graph, setting.state.params, setting.trainable.frozen)
    e = experience
    outputs = policy_outputs(model, e.tokens_bt, e.segments_bt, None, settings, remat=False)
    new, entropy, values = (np.asarray(x, np.float64) for x in outputs)
    expected = dict.fromkeys(
        ("policy_loss", "value_loss", "approx_kl", "clip_fraction", "ratio", "weight"), 0.0
    )
    loss = 0.0
    for b, t in np.argwhere(np.asarray(e.mask_bt) > 0):
        log_ratio = new[b, t] - float(e.logprobs_bt[b, t])
        ratio, advantage = np.exp(log_ratio), float(e.advantages_bt[b, t])
        policy_loss = -min(ratio * advantage, np.clip(ratio, 0.99, 1.01) * advantage)
        old, wanted = float(e.values_bt[b, t]), float(e.returns_bt[b, t])
        clipped = old + np.clip(values[b, t] - old, -0.2, 0.2)
        value_loss = 0.5 * max((values[b, t] - wanted) ** 2, (clipped - wanted) ** 2)
        expected["policy_loss"] += policy_loss
        expected["value_loss"] += value_loss
        expected["approx_kl"] += ratio - 1 - log_ratio
        expected["clip_fraction"] += abs(ratio - 1) > 0.01
        expected["ratio"] += ratio
        expected["weight"] += 1
        loss += policy_loss + 0.7 * value_loss - entropy_coef * entropy[b, t]
    ours, sums = ppo_loss_sum(model, e, settings)
    assert 0 < expected["clip_fraction"] < expected["weight"]
    np.testing.assert_allclose(ours, loss, rtol=1e-4)
    for name, value in expected.items():
        np.testing.assert_allclose(sums[name], value, rtol=1e-3, atol=1e-4, err_msg=name)


def test_micro_batches_change_no_update(mesh):
    """The same policy, value function and metrics, though rows differ in their tokens."""
    after = []
    for micro_batches in (1, 2, 4):
        setting = Setting(mesh)
        experience, _ = setting.prepare(setting.rollout(0))
        counts = np.asarray(experience.mask_bt).sum(1)
        assert len(set(counts)) > 1
        settings = replace(SETTINGS, micro_batches=micro_batches, epochs=1)
        metrics = setting.update(experience, settings=settings)
        after.append((setting.state.params, metrics))
    for other in after[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), other, after[0])


def test_no_two_epochs_or_iterations_share_a_shuffle():
    settings = replace(SETTINGS, epochs=3, minibatches=4)
    orders = []
    for iteration in range(3):
        rows = np.asarray(minibatch_rows(named_key(0, "rl", "shuffle", iteration), 64, settings))
        assert rows.shape == (12, 16)
        for epoch in rows.reshape(3, 64):
            assert sorted(epoch) == list(range(64))
            orders.append(tuple(epoch))
    assert len(set(orders)) == 9


def test_ppo_earns_more(mesh):
    setting = Setting(mesh)
    earned = lambda start: np.mean([setting.rollout(start + i).scores_b for i in range(6)])
    before = earned(100)
    for iteration in range(12):
        experience, _ = setting.prepare(setting.rollout(iteration))
        setting.update(experience, iteration)
    assert earned(100) > before + 0.2


def test_a_shared_trunk_changes_nothing(mesh):
    shared, alone = Setting(mesh, frozen_layers=2), Setting(mesh, frozen_layers=2)
    rollout = shared.rollout(0)
    for iteration in range(2):  # the second time policy and reference differ
        experience, stats = shared.prepare(rollout, 0.1)
        assert experience.trunk_btd is not None
        _, alone_stats = alone.prepare(rollout, 0.1)
        assert (abs(float(stats["kl_k3"])) > 1e-5) == (iteration > 0)
        # A reference that computes its own lower layers is at the same distance.
        model = nnx.merge(alone.reference.graph, alone.reference.params)
        whole = token_logprobs(
            model, rollout.tokens_bt, rollout.segments_bt, SETTINGS.temperature, start=4
        ).logprobs_bt
        mask = rollout.mask_bt
        by_hand = np.mean(np.sum((experience.logprobs_bt - whole) * mask, axis=1))
        np.testing.assert_allclose(stats["kl_k1"], by_hand, atol=1e-4)
        np.testing.assert_allclose(stats["kl_k1"], alone_stats["kl_k1"], atol=1e-4)
        ours = shared.update(experience, iteration)
        theirs = alone.update(experience._replace(trunk_btd=None), iteration)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), ours, theirs
        )
    shared.reference_graph = nnx.split(tiny_decoder())[0]
    with pytest.raises(ValueError, match="freezes 0 layers, policy_graph 2"):
        shared.prepare(rollout)


def test_values_do_not_divide_by_the_temperature(mesh):
    setting = Setting(mesh)
    model = nnx.merge(setting.trainable.graph, setting.state.params, setting.trainable.frozen)
    model.value_head.kernel.set_value(jnp.linspace(-1, 1, TINY.d_model))
    rollout = setting.rollout(0)
    outputs = [
        policy_outputs(
            model,
            rollout.tokens_bt,
            rollout.segments_bt,
            None,
            replace(SETTINGS, temperature=temperature),
            remat=False,
        )
        for temperature in (0.5, 1.0)
    ]
    np.testing.assert_array_equal(outputs[0][2], outputs[1][2])
    assert np.abs(np.asarray(outputs[0][2])).max() > 0.1
    assert np.abs(np.asarray(outputs[0][0] - outputs[1][0])).max() > 0.1
