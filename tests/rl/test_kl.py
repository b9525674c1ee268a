"""KL estimates and the adaptive coefficient against NumPy."""

import jax.numpy as jnp
import numpy as np

from cai_jax.rl.kl import AdaptiveKL, kl_estimates


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
