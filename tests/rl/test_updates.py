"""What online algorithms share, against NumPy: the surrogate, experience, minibatches."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_decoder
from flax import nnx
from rl_setting import ALGORITHM, Setting

from cai_jax.generation.engine import Completion
from cai_jax.keys import named_key
from cai_jax.learning.logprobs import logprobs_of_hidden
from cai_jax.rl.rollout import Width, assemble
from cai_jax.rl.updates import clipped_surrogate, minibatch_rows

RNG = np.random.default_rng(0)


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
    reference = np.asarray(experience.logprobs_bn, np.float64)  # the policy starts there
    for iteration in range(2):
        setting.update(experience, iteration)
    moved, stats = setting.prepare(rollout, 0.1)
    log_ratio = np.asarray(moved.logprobs_bn, np.float64) - reference
    mask = rollout.mask_bn
    k3 = (np.exp(-log_ratio) - 1 + log_ratio) * mask
    np.testing.assert_allclose(
        stats["kl_k1"], (log_ratio * mask).sum(1).mean(), rtol=1e-5, atol=1e-4
    )
    np.testing.assert_allclose(stats["kl_k3"], k3.sum(1).mean(), rtol=1e-5, atol=1e-4)
    assert stats["kl_k3"] > 1e-3


def test_micro_batches_change_no_update(mesh):
    """The same policy, value function and metrics, though rows differ in their tokens."""
    after = []
    for micro_batches in (1, 2, 4):
        setting = Setting(mesh)
        experience, _ = setting.prepare(setting.rollout(0))
        counts = np.asarray(experience.mask_bn).sum(1)
        assert len(set(counts)) > 1
        algorithm = replace(ALGORITHM, micro_batches=micro_batches, epochs=1)
        metrics = setting.update(experience, algorithm=algorithm)
        after.append((setting.state.params, metrics))
    for other in after[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), other, after[0])


def test_no_two_epochs_or_iterations_share_a_shuffle():
    algorithm = replace(ALGORITHM, epochs=3, minibatches=4)
    orders = []
    for iteration in range(3):
        rows = np.asarray(minibatch_rows(named_key(0, "rl", "shuffle", iteration), 64, algorithm))
        assert rows.shape == (12, 16)
        for epoch in rows.reshape(3, 64):
            assert sorted(epoch) == list(range(64))
            orders.append(tuple(epoch))
    assert len(set(orders)) == 9


def test_a_rollout_may_be_as_narrow_as_its_rows(mesh):
    """Experience, statistics, policy and value function do not depend on padding."""
    prompts = [[5, 2, 3][: 1 + i % 3] for i in range(8)]
    answers = [RNG.integers(3, 90, 1 + i % 4).tolist() for i in range(8)]
    said = [Completion(ids, np.full(len(ids), -4, np.float32), True) for ids in answers]
    found = []
    for width in (Width(3, 4), Width(7, 12)):
        setting = Setting(mesh)
        rollout = assemble(prompts, said, [len(a) for a in answers], np.arange(8.0), width)
        assert rollout.tokens_bt.shape == (8, sum(width))
        experience, stats = setting.prepare(rollout, 0.1)
        metrics = setting.update(experience)
        kept = [
            np.where(rollout.mask_bn > 0, x, 0)[:, :4]
            for x in (experience.logprobs_bn, experience.advantages_bn, experience.returns_bn)
        ]
        found.append((kept, stats, metrics, setting.state.params))
    narrow, wide = map(jax.device_get, found)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), narrow, wide)


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
        rows = rollout.tokens_bt, rollout.segments_bt
        whole = logprobs_of_hidden(
            model, model.hidden(*rows), *rows, ALGORITHM.temperature, start=4
        ).logprobs_bt[:, 4:]
        mask = rollout.mask_bn
        by_hand = np.mean(np.sum((experience.logprobs_bn - whole) * mask, axis=1))
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
