"""Statistics over masks against NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cai_jax.parallel.mesh import put_batch
from cai_jax.rl.masked import masked_mean, whiten

RNG = np.random.default_rng(0)


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
    sharded = jax.jit(whiten)(*put_batch((x, mask), mesh8))
    np.testing.assert_allclose(sharded, (x - x.mean()) / x.std(), atol=1e-4)
