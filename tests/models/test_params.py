"""Low-rank updates, and parameters as they are stored and sharded."""

import jax
import jax.numpy as jnp
import numpy as np
from conftest import at_rest, tiny_decoder
from flax import nnx

from cai_jax.models.config import LoRAConfig
from cai_jax.models.layers import LoRAParam
from cai_jax.models.params import merge_lora


def logits_of(decoder, tokens, segments):
    return decoder.logits(decoder.hidden(tokens, segments))


def test_lora_starts_as_the_base_and_merges_exactly():
    lora = LoRAConfig(rank=2, alpha=6.0)
    base, adapted = tiny_decoder(), tiny_decoder(lora=lora)
    tokens, segments = jnp.arange(12)[None], jnp.ones((1, 12), jnp.int32)
    graph, updates, rest = nnx.split(adapted, LoRAParam, ...)
    base_params = at_rest(base).params
    untouched = nnx.merge(graph, updates, base_params)
    np.testing.assert_array_equal(
        logits_of(untouched, tokens, segments), logits_of(base, tokens, segments)
    )
    updates = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape) * 0.1, updates
    )
    trained = nnx.merge(graph, updates, base_params)
    again = at_rest(tiny_decoder()).params  # the merge reuses their buffers
    merged = nnx.merge(at_rest(base).graph, merge_lora(again, updates, scale=lora.scale))
    np.testing.assert_allclose(
        logits_of(trained, tokens, segments), logits_of(merged, tokens, segments), atol=1e-4
    )
    assert len(jax.tree.leaves(rest)) == len(jax.tree.leaves(base_params))
