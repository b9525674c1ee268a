"""Optimizers against NumPy."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cai_jax.learning.optimizers import make_optimizer
from cai_jax.models.layers import HeadParam


def test_adam_adds_epsilon_to_the_bias_corrected_root():
    """optax's and PyTorch's form; TensorFlow's divides epsilon by the correction (item 16)."""
    gradients = np.random.default_rng(0).normal(scale=1e-4, size=(6, 5))
    optimizer = make_optimizer(0.01, 0, 10.0, adam_eps=1e-5)
    state = optimizer.init(jnp.zeros(5))
    mean = square = np.zeros(5)
    for step, gradient in enumerate(gradients, 1):
        mean, square = 0.9 * mean + 0.1 * gradient, 0.95 * square + 0.05 * gradient**2
        corrected = mean / (1 - 0.9**step), square / (1 - 0.95**step)
        expected = -0.01 * corrected[0] / (np.sqrt(corrected[1]) + 1e-5)
        updates, state = optimizer.update(jnp.asarray(gradient), state, jnp.zeros(5))
        np.testing.assert_allclose(updates, expected, rtol=1e-4)


def test_a_cosine_voids_no_update():
    grads = {"w": jnp.ones(1)}
    optimizer = make_optimizer(0.1, 2, 10.0, decay_steps=5)
    state, sizes = optimizer.init(grads), []
    for _ in range(5):
        updates, state = optimizer.update(grads, state, grads)
        sizes.append(-float(updates["w"][0]))
    assert sizes[0] == pytest.approx(0.05, rel=1e-4)
    assert max(sizes) == pytest.approx(0.1, rel=1e-4)
    assert 0.01 < sizes[-1] < sizes[-2]


def test_optimizer_first_update_is_not_void_and_warms_up():
    grads = {"w": jnp.ones(3)}
    for warmup, expected in ((0, 0.1), (1, 0.1), (4, 0.025)):
        optimizer = make_optimizer(0.1, warmup, 10.0)
        updates, _ = optimizer.update(grads, optimizer.init(grads), grads)
        np.testing.assert_allclose(updates["w"], -expected, rtol=1e-4)


def test_heads_have_a_rate_of_their_own():
    """And one optimizer state, warm-up and clipping with all else."""
    params = nnx.State({"body": nnx.Param(jnp.ones(3)), "head": HeadParam(jnp.ones(2))})
    grads = nnx.State({"body": nnx.Param(jnp.arange(3.0)), "head": HeadParam(jnp.array([3.0, -1]))})

    def run(rate, **own):
        optimizer = make_optimizer(rate, 2, 1.0, **own)
        state, updates = optimizer.init(params), []
        for _ in range(3):
            update, state = optimizer.update(grads, state, params)
            updates.append(update)
        return updates

    slow, fast, own = run(1e-3), run(5e-2), run(1e-3, head_learning_rate=5e-2)
    for at_slow, at_fast, both in zip(slow, fast, own, strict=True):
        np.testing.assert_array_equal(both["body"], at_slow["body"])
        np.testing.assert_allclose(both["head"], at_fast["head"], rtol=1e-6)
