"""The rows that are decoded together: each slot holds one, and takes the next when it has ended."""

from functools import partial
from typing import Any, Generic, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cai_jax.generation.sampling import Sampling, sample
from cai_jax.models.config import DecoderConfig
from cai_jax.models.decoder import Decoder, KVCache, Prefix, cached_keys, positions_axis
from cai_jax.models.heads import last_token
from cai_jax.parallel.mesh import abstract_batch, partition_spec
from cai_jax.parallel.program import Array


class Slots(NamedTuple, Generic[Array]):
    """What is decoded, a row a slot."""

    cache: KVCache[Array]
    hidden_bd: Array  # after each row's last token, in the compute dtype
    keys_b2: Array  # uint32: random key of each row
    live_b: Array  # bool: whether the row goes on
    sampled_b: Array  # int32: tokens of its completion so far
    limit_b: Array  # int32: tokens that its completion may have
    tokens_bn: Array  # int32: those tokens
    logprobs_bn: Array  # float32: their log-probabilities under the sampled distribution


def abstract_slots(
    config: DecoderConfig, dtype: jnp.dtype, mesh: Mesh, slots: int, positions: int, new: int
) -> Slots[jax.ShapeDtypeStruct]:
    """Shapes, dtypes and shardings.

    Args:
      config: of the decoder.
      dtype: that it computes in.
      mesh: of sampling.
      slots: how many.
      positions: of each slot's cache, prompt and completion together.
      new: tokens of a completion at most.
    """
    axes = ("batch", "kv_heads", None, None)
    shape = (slots, config.num_kv_heads, positions, config.head_dim)
    sharding = NamedSharding(mesh, partition_spec(axes, shape, mesh))
    values = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    keys = jax.ShapeDtypeStruct(jax.eval_shape(cached_keys, values).shape, dtype, sharding=sharding)

    def rows(*sizes: int, of: Any) -> jax.ShapeDtypeStruct:
        return abstract_batch((slots, *sizes), of, mesh)

    return Slots(
        cache=KVCache(
            (keys,) * config.num_layers, (values,) * config.num_layers, rows(of=jnp.int32)
        ),
        hidden_bd=rows(config.d_model, of=dtype),
        keys_b2=rows(2, of=jnp.uint32),
        live_b=rows(of=bool),
        sampled_b=rows(of=jnp.int32),
        limit_b=rows(of=jnp.int32),
        tokens_bn=rows(new, of=jnp.int32),
        logprobs_bn=rows(new, of=jnp.float32),
    )


def empty(like: Slots[jax.ShapeDtypeStruct]) -> Slots[jax.Array]:
    """Slots without a row."""
    shardings = jax.tree.map(lambda x: x.sharding, like)
    zeros = lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    made: Slots[jax.Array] = jax.jit(zeros, out_shardings=shardings)()
    return made


@partial(jax.jit, static_argnames=("graph", "shards"), donate_argnames=("slots",))
def fill(
    graph: nnx.GraphDef,
    params: nnx.State,
    slots: Slots[jax.Array],
    tokens_pt: jax.Array,
    segments_pt: jax.Array,
    source_b: jax.Array,
    keys_b2: jax.Array,
    limit_b: jax.Array,
    prefix: Prefix[jax.Array] | None = None,
    *,
    shards: int,
) -> Slots[jax.Array]:
    """Reads prompts, and starts rows after them; a prompt may have several.

    Args:
      graph: of a Decoder.
      params: its parameters.
      slots: whose buffers are reused.
      tokens_pt: int32 prompts, padded on the right.
      segments_pt: int32, 1 on prompt tokens.
      source_b: int32, the prompt that each slot takes, counted within its shard; -1: the slot keeps
        its row.
      keys_b2: uint32, of the rows that start.
      limit_b: int32, tokens that their completions may have.
      prefix: what all these prompts go on from, once a shard; None: they are whole.
      shards: of the batch; a slot takes a prompt of its own shard, so that no keys and values pass
        between devices.
    """
    decoder: Decoder = nnx.merge(graph, params)
    hidden_ptd, keys, values = decoder.prefill(tokens_pt, segments_pt, prefix)
    lengths_p = jnp.sum(segments_pt, axis=1)
    if prefix:
        before = jnp.max(prefix.lengths_b)
        keys, values = (
            _after(held, read, before)
            for held, read in ((prefix.keys, keys), (prefix.values, values))
        )
        lengths_p += before
    starts_b = source_b >= 0

    def take(old_b: jax.Array, new_p: jax.Array) -> jax.Array:
        """The new entries where rows start, the old ones elsewhere."""
        by_shard = lambda x: x.reshape(shards, -1, *x.shape[1:])
        taken = jax.vmap(lambda new, source: new[source])(
            by_shard(new_p), by_shard(jnp.maximum(source_b, 0))
        ).reshape(source_b.shape[0], *new_p.shape[1:])
        starts = starts_b.reshape(-1, *(1,) * (old_b.ndim - 1))
        return jnp.where(starts, taken.astype(old_b.dtype), old_b)

    def take_positions(old: jax.Array, new_pktn: jax.Array, axis: int) -> jax.Array:
        """The prompts' positions come first along an axis; those after them are free."""
        new = new_pktn if axis == 2 else cached_keys(new_pktn)
        here = jax.lax.slice_in_dim(new, 0, min(old.shape[axis], new.shape[axis]), axis=axis)
        free = [(0, old.shape[a] - here.shape[a] if a == axis else 0) for a in range(4)]
        return take(old, jnp.pad(here, free))  # what is sliced off is padding

    layers, axis = range(len(slots.cache.keys)), positions_axis(slots.cache.keys[0].dtype)
    return Slots(
        cache=KVCache(
            tuple(take_positions(slots.cache.keys[i], keys[i], axis) for i in layers),
            tuple(take_positions(slots.cache.values[i], values[i], 2) for i in layers),
            take(slots.cache.lengths_b, lengths_p),
        ),
        hidden_bd=take(slots.hidden_bd, last_token(hidden_ptd, segments_pt)),
        keys_b2=jnp.where(starts_b[:, None], keys_b2, slots.keys_b2),
        live_b=slots.live_b | starts_b,
        sampled_b=jnp.where(starts_b, 0, slots.sampled_b),
        limit_b=jnp.where(starts_b, limit_b, slots.limit_b),
        tokens_bn=slots.tokens_bn,
        logprobs_bn=slots.logprobs_bn,
    )


def _after(held: jax.Array, read: jax.Array, length: jax.Array) -> jax.Array:
    """Keys or values [layers, p, k, s, n] of prompts: a prefix, and behind it what was read."""
    each = jnp.repeat(held, read.shape[1] // held.shape[1], axis=1)
    room = jnp.pad(each, ((0, 0), (0, 0), (0, 0), (0, read.shape[3]), (0, 0)))
    return jax.lax.dynamic_update_slice_in_dim(room, read, length, axis=3)


@partial(jax.jit, static_argnames=("graph", "sampling", "stop_ids"), donate_argnames=("slots",))
def decode(
    graph: nnx.GraphDef,
    params: nnx.State,
    slots: Slots[jax.Array],
    still: jax.Array,
    *,
    sampling: Sampling,
    stop_ids: tuple[int, ...],
) -> Slots[jax.Array]:
    """Samples until no more than ``still`` rows are live.

    Args:
      graph: of a Decoder.
      params: its parameters.
      slots: whose buffers are reused.
      still: int32 scalar; 0: until all rows have ended.
      sampling: how tokens are drawn.
      stop_ids: tokens that end a row; the limit of its completion does, too.
    """
    stops = jnp.array(stop_ids, jnp.int32)
    keys_b = jax.random.wrap_key_data(slots.keys_b2)
    most = slots.tokens_bn.shape[1]  # steps, as no row has more tokens
    columns_n = jnp.arange(most)
    decoder: Decoder = nnx.merge(graph, params)
    by_layer = decoder.unstacked()

    def goes_on(carry: tuple[jax.Array, Slots[jax.Array]]) -> jax.Array:
        done, slots = carry
        return (done < most) & (jnp.sum(slots.live_b) > still)

    def step(carry: tuple[jax.Array, Slots[jax.Array]]) -> tuple[jax.Array, Slots[jax.Array]]:
        done, slots = carry
        keys = jax.vmap(jax.random.fold_in)(keys_b, slots.sampled_b)
        token_b, logprob_b = sample(decoder.logits(slots.hidden_bd), keys, sampling)
        here_bn = slots.live_b[:, None] & (columns_n == slots.sampled_b[:, None])
        added_b = slots.live_b.astype(jnp.int32)
        sampled_b = slots.sampled_b + added_b
        hidden_btd, cache = decoder.extend(token_b[:, None], added_b, slots.cache, by_layer)
        return done + 1, Slots(
            cache=cache,
            hidden_bd=hidden_btd[:, 0],
            keys_b2=slots.keys_b2,
            live_b=slots.live_b & ~jnp.isin(token_b, stops) & (sampled_b < slots.limit_b),
            sampled_b=sampled_b,
            limit_b=slots.limit_b,
            tokens_bn=jnp.where(here_bn, token_b[:, None], slots.tokens_bn),
            logprobs_bn=jnp.where(here_bn, logprob_b[:, None], slots.logprobs_bn),
        )

    _, ended = jax.lax.while_loop(goes_on, step, (jnp.zeros((), jnp.int32), slots))
    return ended
