"""The pieces of a decoder block."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from conftest import TINY
from flax import nnx

from cai_jax.models.config import Execution
from cai_jax.models.decoder import Decoder
from cai_jax.models.layers import matmul


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
