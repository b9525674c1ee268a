"""What is read off rows of tokens: the jitted functions of a scorer.

Rows are packed one after the other: whole ones, or the rests of those that go on from a prefix.
"""

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cai_jax.learning.logprobs import logprobs_of_hidden
from cai_jax.models.decoder import Decoder, Prefix
from cai_jax.models.heads import PreferenceModel
from cai_jax.parallel.mesh import abstract_batch, constrain, partition_spec
from cai_jax.parallel.program import Program


@partial(jax.jit, static_argnames=("graph",))
def read_prefix(
    graph: nnx.GraphDef, params: nnx.State, tokens_bt: jax.Array, segments_bt: jax.Array
) -> Prefix[jax.Array]:
    """Keys and values of what rows begin with; padded on the right."""
    module: Decoder | PreferenceModel = nnx.merge(graph, params)
    _, keys, values = _decoder(module).prefill(tokens_bt, segments_bt)
    held = lambda x: constrain(x, None, "batch", "kv_heads", None, None)
    return Prefix(held(keys), held(values), jnp.sum(segments_bt, axis=1))


def prefix_program(
    name: str,
    graph: nnx.GraphDef,
    params: nnx.State,
    size: int,
    mesh: Mesh,
    shape: tuple[int, int],
) -> Program:
    """``read_prefix`` of so many rows of a width.

    Args:
      name: of the program.
      graph: of the model.
      params: its parameters, abstract.
      size: how many these are.
      mesh: that they are sharded over.
      shape: rows and their width.
    """
    rows = abstract_batch(shape, jnp.int32, mesh)
    flops = 2.0 * size * rows.size
    args = (graph, params, rows, rows)
    return Program(name, read_prefix, args, {}, mesh, rows.size, flops)


def abstract_prefix(
    graph: nnx.GraphDef, params: nnx.State, mesh: Mesh, rows: int, width: int
) -> Prefix[jax.ShapeDtypeStruct]:
    """Shapes of what ``read_prefix`` gives for so many rows of a width."""
    decoder = _decoder(nnx.merge(graph, params))
    c = decoder.config
    shape = (c.num_layers, rows, c.num_kv_heads, width, c.head_dim)
    spec = partition_spec((None, "batch", "kv_heads", None, None), shape, mesh)
    held = jax.ShapeDtypeStruct(shape, decoder.dtype, sharding=NamedSharding(mesh, spec))
    return Prefix(held, held, abstract_batch((rows,), jnp.int32, mesh))


def _decoder(module: Decoder | PreferenceModel) -> Decoder:
    return module if isinstance(module, Decoder) else module.decoder


@partial(jax.jit, static_argnames=("graph", "temperature"))
def packed_logprobs(
    graph: nnx.GraphDef,
    params: nnx.State,
    prefix: Prefix[jax.Array] | None,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    ends_bm: jax.Array,
    *,
    temperature: float,
) -> jax.Array:
    """Float32 [b, t]: log-probability of every token but the first of each row, which is 0."""
    decoder: Decoder = nnx.merge(graph, params)
    hidden_btd = decoder.hidden(tokens_bt, segments_bt, prefix=prefix)
    return logprobs_of_hidden(decoder, hidden_btd, tokens_bt, segments_bt, temperature).logprobs_bt


@partial(jax.jit, static_argnames=("graph",))
def packed_next_logprobs(
    graph: nnx.GraphDef,
    params: nnx.State,
    prefix: Prefix[jax.Array] | None,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    ends_bm: jax.Array,
    choices_c: jax.Array,
) -> jax.Array:
    """Float32 [b, m, c]: log-probability of each id of ``choices_c`` after each row."""
    decoder: Decoder = nnx.merge(graph, params)
    hidden_bmd = _at_ends(decoder, prefix, tokens_bt, segments_bt, ends_bm)
    return jax.nn.log_softmax(decoder.logits(hidden_bmd), axis=-1)[..., choices_c]


@partial(jax.jit, static_argnames=("graph",))
def packed_features(
    graph: nnx.GraphDef,
    params: nnx.State,
    prefix: Prefix[jax.Array] | None,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    ends_bm: jax.Array,
) -> jax.Array:
    """Float32 [b, m, d]: what the head of a preference model reads at the end of each row."""
    judge: PreferenceModel = nnx.merge(graph, params)
    hidden_bmd = _at_ends(judge.decoder, prefix, tokens_bt, segments_bt, ends_bm)
    return hidden_bmd.astype(jnp.float32)


def _at_ends(
    decoder: Decoder,
    prefix: Prefix[jax.Array] | None,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    ends_bm: jax.Array,
) -> jax.Array:
    """Hidden states [b, m, d] at the last token of each row."""
    hidden_btd = decoder.hidden(tokens_bt, segments_bt, prefix=prefix)
    return jnp.take_along_axis(hidden_btd, ends_bm[..., None], axis=1)


@dataclass(frozen=True)
class Reading:
    """What is read."""

    function: jax.stages.Wrapped
    by_token: bool  # a value for each token, or for each row


LOGPROBS = Reading(packed_logprobs, by_token=True)
CHOICES = Reading(packed_next_logprobs, by_token=False)
FEATURES = Reading(packed_features, by_token=False)
