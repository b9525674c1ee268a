"""The pieces of a decoder block."""

import jax
import jax.numpy as jnp
import numpy as np

from cai_jax.models.layers import matmul


def test_matmul_gradients_equal_autodiff():
    x, w = jax.random.normal(jax.random.key(0), (2, 3, 4)), jnp.arange(8.0).reshape(4, 2)
    ours = jax.grad(lambda x, w: jnp.sum(jnp.sin(matmul(x, w))), (0, 1))(x, w)
    theirs = jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w)), (0, 1))(x, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
