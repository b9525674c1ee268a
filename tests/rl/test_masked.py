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


NUMBERS = arrays(np.float32, (4, 6), elements=st.floats(-10, 10, width=16, allow_subnormal=False))
MASKS = arrays(np.int32, (4, 6), elements=st.integers(0, 1))


@settings(max_examples=100, deadline=None)
@given(NUMBERS, MASKS)
def test_masked_mean_is_over_the_mask(x, mask):
    real = x[mask > 0].astype(np.float64)
    expected = real.mean() if len(real) else 0.0
    np.testing.assert_allclose(masked_mean(x, jnp.asarray(mask)), expected, rtol=1e-5, atol=1e-5)


@settings(max_examples=100, deadline=None)
@given(NUMBERS, MASKS, MASKS)
def test_whitening_is_over_what_is_judged(x, mask, judged):
    judged = judged * mask
    white = np.asarray(whiten(*map(jnp.asarray, (x, mask, judged))))
    assert (white[mask == 0] == 0).all()
    tail = (mask > 0) & (judged == 0)
    np.testing.assert_array_equal(np.sign(white[tail]), np.sign(x[tail]))
    real = x[judged > 0].astype(np.float64)
    if len(real):
        # Of nearly equal numbers float32 loses the variance: there the bound follows from it.
        deviation = np.sqrt(real.var() + 1e-8)
        error = 1e-5 * (1 + abs(x).max() / deviation) ** 2
        np.testing.assert_allclose(white[judged > 0], (real - real.mean()) / deviation, atol=error)
        np.testing.assert_allclose(white[tail], x[tail] / deviation, atol=error)


def test_whitening_is_global_over_devices(mesh8):
    x, mask = RNG.normal(size=(8, 4)), np.ones((8, 4))
    sharded = jax.jit(whiten)(*put_batch((x, mask, mask), mesh8))
    np.testing.assert_allclose(sharded, (x - x.mean()) / x.std(), atol=1e-4)
