"""Statistics over masks against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cai_jax.parallel.mesh import put_batch
from cai_jax.rl.masked import whiten

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_is_over_the_mask(shift_mean):
    x, mask = RNG.normal(3.0, 2.0, size=(4, 6)), RNG.integers(0, 2, size=(4, 6))
    mask[0, 0] = 1
    real = x[mask > 0]
    expected = (real - real.mean()) / real.std() + (0 if shift_mean else real.mean())
    white = np.asarray(whiten(jnp.asarray(x), jnp.asarray(mask), shift_mean))
    np.testing.assert_allclose(white[mask > 0], expected, atol=1e-4)
    assert (white[mask == 0] == 0).all()


def test_whitening_is_global_over_devices(mesh8):
    x, mask = RNG.normal(size=(8, 4)), np.ones((8, 4))
    sharded = jax.jit(whiten)(*put_batch((x, mask), mesh8))
    np.testing.assert_allclose(sharded, (x - x.mean()) / x.std(), atol=1e-4)
