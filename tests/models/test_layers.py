"""The pieces of a decoder block."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import nnx

from cai_jax.models.config import Execution
from cai_jax.models.decoder import Decoder
from cai_jax.models.layers import attend, matmul


def test_matmul_gradients_equal_autodiff():
    x, w = jax.random.normal(jax.random.key(0), (2, 3, 4)), jnp.arange(8.0).reshape(4, 2)
    ours = jax.grad(lambda x, w: jnp.sum(jnp.sin(matmul(x, w))), (0, 1))(x, w)
    theirs = jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w)), (0, 1))(x, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_what_remat_keeps_is_not_computed_again():
    """Policies see the dots of projections, and gradients do not depend on them."""
    tokens = jnp.arange(24).reshape(2, 12)
    flops, grads = {}, {}
    for remat in ("nothing_saveable", "dots_with_no_batch_dims_saveable", "everything_saveable"):
        decoder = Decoder(replace(TINY, execution=Execution("xla", remat)), rngs=nnx.Rngs(0))
        graph, params = nnx.split(decoder)

        def loss(params, graph=graph):
            hidden = nnx.merge(graph, params).hidden(tokens, jnp.ones_like(tokens), remat=True)
            return jnp.sum(jnp.sin(hidden))

        compiled = jax.jit(jax.grad(loss)).lower(params).compile()
        flops[remat] = compiled.cost_analysis()["flops"]
        grads[remat] = compiled(params)
    none, dots, every = flops.values()
    assert every < dots < none
    assert none - dots > 0.8 * (none - every)  # projections are most of what there is
    first, *others = grads.values()
    for other in others:
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), other, first
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("t", [1, 3])
def test_keys_with_their_positions_last_give_what_the_others_give(dtype, t):
    draw = lambda seed, *shape: jax.random.normal(jax.random.key(seed), shape, dtype)
    q, keys, values = draw(0, 2, t, 6, 8), draw(1, 2, 3, 20, 8), draw(2, 2, 3, 20, 8)
    mask = jnp.arange(20) <= jnp.array([[4], [17]])[:, None] + jnp.arange(t)[:, None]
    usual = attend(q, keys, values, mask, 0.3, 20.0)
    last = attend(q, keys.swapaxes(2, 3), values, mask, 0.3, 20.0, positions_last=True)
    tolerance = 1e-6 if dtype == jnp.float32 else 2e-2
    np.testing.assert_allclose(np.float32(last), np.float32(usual), rtol=tolerance, atol=tolerance)
