"""A decoder-only transformer of the Llama family, layers stacked and scanned."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.models.layers import Linear, RMSNorm, attend, rotate
from cai_jax.parallel.mesh import constrain

# From rotated queries [b,t,h,n], keys and values [b,k,t,n] to the attention output [b,t,h*n].
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class KVCache(NamedTuple):
    """Keys and values of the tokens so far, one array a layer.

    Separate arrays, not one stacked array: XLA updates each in place, where it copies a stacked
    one every step (measured 2 to 3 times slower decoding on CPU).
    """

    keys: tuple[jax.Array, ...]  # num_layers of [b, k, s, n]
    values: tuple[jax.Array, ...]
    valid_bs: jax.Array  # bool: which slots hold a real token


class Block(nnx.Module):
    """All transformer blocks of a decoder, stacked along a leading layer axis."""

    def __init__(self, config: DecoderConfig, lora: LoRAConfig | None, *, rngs: nnx.Rngs):
        c, layers = config, config.num_layers
        self.config = config
        heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
        norm_shape, norm_axes = (layers, c.d_model), ("layers", None)
        self.attention_norm = RMSNorm(norm_shape, norm_axes, c.rms_eps)
        self.q = Linear(layers, c.d_model, heads, ("embed", "heads"), lora, rngs=rngs)
        self.k = Linear(layers, c.d_model, kv_heads, ("embed", "kv_heads"), lora, rngs=rngs)
        self.v = Linear(layers, c.d_model, kv_heads, ("embed", "kv_heads"), lora, rngs=rngs)
        self.o = Linear(layers, heads, c.d_model, ("heads", "embed"), lora, rngs=rngs)
        self.mlp_norm = RMSNorm(norm_shape, norm_axes, c.rms_eps)
        self.gate = Linear(layers, c.d_model, c.d_ff, ("embed", "mlp"), lora, rngs=rngs)
        self.up = Linear(layers, c.d_model, c.d_ff, ("embed", "mlp"), lora, rngs=rngs)
        self.down = Linear(layers, c.d_ff, c.d_model, ("mlp", "embed"), lora, rngs=rngs)

    def __call__(self, x_btd: jax.Array, positions_bt: jax.Array, attention: Attend) -> jax.Array:
        c = self.config
        b, t, _ = x_btd.shape
        x = self.attention_norm(x_btd)
        q = rotate(self.q(x).reshape(b, t, c.num_heads, c.head_dim), positions_bt, c.rope_theta)
        k = rotate(self.k(x).reshape(b, t, c.num_kv_heads, c.head_dim), positions_bt, c.rope_theta)
        v = self.v(x).reshape(b, t, c.num_kv_heads, c.head_dim)
        q = constrain(q, "batch", None, "heads", None)
        x_btd += self.o(attention(q, k.swapaxes(1, 2), v.swapaxes(1, 2)))
        x = self.mlp_norm(x_btd)
        x_btd += self.down(constrain(jax.nn.silu(self.gate(x)) * self.up(x), "batch", None, "mlp"))
        return constrain(x_btd, "batch", None, None)


class Decoder(nnx.Module):
    """Token ids in, hidden states out; ``logits`` projects hidden states to the vocabulary.

    Args:
      config: sizes.
      lora: adds low-rank updates, zero at the start, to every projection of every block.
      dtype: type of activations and products; parameters keep their own type.
      frozen_layers: no gradient passes through this many of the lower layers; training costs
        that much less time and memory.
    """

    def __init__(
        self,
        config: DecoderConfig,
        lora: LoRAConfig | None = None,
        dtype: jnp.dtype = jnp.float32,
        frozen_layers: int = 0,
        *,
        rngs: nnx.Rngs,
    ):
        self.config, self.dtype, self.frozen_layers = config, dtype, frozen_layers
        init = nnx.initializers.normal(stddev=0.02)
        table = (config.vocab_size, config.d_model)
        self.embedding = nnx.Param(init(rngs.params(), table, jnp.float32), axes=("vocab", "embed"))
        self.blocks = Block(config, lora, rngs=rngs)
        self.norm = RMSNorm((config.d_model,), (None,), config.rms_eps)
        if not config.tie_embeddings:
            self.output = nnx.Param(
                init(rngs.params(), table, jnp.float32), axes=("vocab", "embed")
            )

    def trunk(self, tokens_bt: jax.Array, segments_bt: jax.Array) -> jax.Array:
        """States [b, t, d] after the embedding and the frozen layers, without a gradient.

        Models that differ in their trained layers alone have this in common: PPO computes it once
        a rollout, for the policy, the reference and every epoch.
        """
        _, stacked = nnx.split(self.blocks)
        lower = jax.tree.map(lambda p: p[: self.frozen_layers], stacked)
        x_btd, _ = self._scan_blocks(
            lower, self._embed(tokens_bt), segments_bt, remat=False, keep_kv=False
        )
        return jax.lax.stop_gradient(x_btd)

    def hidden(
        self,
        tokens_bt: jax.Array,
        segments_bt: jax.Array,
        remat: bool = False,
        trunk_btd: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states of whole sequences, for training and scoring.

        Args:
          tokens_bt: int32 token ids.
          segments_bt: int32; 0 is padding, tokens attend to earlier tokens of their own segment,
            so that several short sequences may be packed in a row. Padding may stand anywhere.
          remat: recompute each block in the backward pass instead of keeping its activations.
          trunk_btd: what ``trunk`` gave for these tokens, to go on from there.

        Returns:
          [b, t, d] after the last norm, in the compute type.
        """
        _, layers = nnx.split(self.blocks)
        if trunk_btd is None and self.frozen_layers:
            trunk_btd = self.trunk(tokens_bt, segments_bt)
        if trunk_btd is None:
            x_btd = self._embed(tokens_bt)
        else:
            x_btd = trunk_btd
            layers = jax.tree.map(lambda p: p[self.frozen_layers :], layers)
        x_btd, _ = self._scan_blocks(layers, x_btd, segments_bt, remat, keep_kv=False)
        return self.norm(x_btd)

    def prefill(
        self, tokens_bt: jax.Array, segments_bt: jax.Array, slots: int
    ) -> tuple[jax.Array, KVCache]:
        """Hidden states of the prompts, and a cache of ``slots`` slots that holds them."""
        _, stacked = nnx.split(self.blocks)
        x_btd, (keys, values) = self._scan_blocks(
            stacked, self._embed(tokens_bt), segments_bt, remat=False, keep_kv=True
        )
        room = slots - tokens_bt.shape[1]
        pad = lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, room), (0, 0)))
        layers = range(self.config.num_layers)
        valid_bs = jnp.pad(segments_bt > 0, ((0, 0), (0, room)))
        return self.norm(x_btd), KVCache(
            tuple(pad(keys[i]) for i in layers), tuple(pad(values[i]) for i in layers), valid_bs
        )

    def decode(
        self, tokens_b: jax.Array, valid_b: jax.Array, slot: jax.Array, cache: KVCache
    ) -> tuple[jax.Array, KVCache]:
        """One step: writes the tokens into ``slot`` of the cache and returns their hidden states.

        Args:
          tokens_b: int32 token of every row.
          valid_b: bool; rows that have ended write an invalid slot.
          slot: int32 scalar, the same column for all rows (prompts are padded on the left).
          cache: the cache of all earlier tokens.
        """
        b = tokens_b.shape[0]
        positions_bt = cache.valid_bs.sum(axis=1, dtype=jnp.int32)[:, None]
        valid_bs = jax.lax.dynamic_update_slice(cache.valid_bs, valid_b[:, None], (0, slot))
        x_btd = self._embed(tokens_b[:, None])
        graph, stacked = nnx.split(self.blocks)
        keys, values = list(cache.keys), list(cache.values)
        for i in range(self.config.num_layers):
            block = nnx.merge(graph, jax.tree.map(lambda p, i=i: p[i], stacked))

            def attention(q, k, v, i=i):
                keys[i] = jax.lax.dynamic_update_slice(keys[i], k, (0, 0, slot, 0))
                values[i] = jax.lax.dynamic_update_slice(values[i], v, (0, 0, slot, 0))
                return attend(q, keys[i], values[i], valid_bs[:, None, :])

            x_btd = block(x_btd, positions_bt, attention)
        return self.norm(x_btd).reshape(b, -1), KVCache(tuple(keys), tuple(values), valid_bs)

    def logits(self, hidden: jax.Array) -> jax.Array:
        """Float32 logits [..., v] of hidden states [..., d]."""
        table = self.embedding if self.config.tie_embeddings else self.output
        return jnp.einsum(
            "...d,vd->...v",
            hidden,
            table[...].astype(hidden.dtype),
            preferred_element_type=jnp.float32,
        )

    def _embed(self, tokens: jax.Array) -> jax.Array:
        return constrain(self.embedding[...].astype(self.dtype)[tokens], "batch", None, None)

    def _scan_blocks(
        self,
        layers: nnx.State,
        x_btd: jax.Array,
        segments_bt: jax.Array,
        remat: bool,
        keep_kv: bool,
    ) -> tuple[jax.Array, tuple[jax.Array, jax.Array] | None]:
        """Runs some consecutive blocks; their keys and values [layers, b, k, t, n] if asked."""
        positions_bt = segment_positions(segments_bt)
        mask_bts = causal_segment_mask(segments_bt)
        graph, _ = nnx.split(self.blocks)

        def body(x_btd, layer):
            kept = None

            def attention(q, k, v):
                nonlocal kept
                kept = (k, v) if keep_kv else None
                return attend(q, k, v, mask_bts)

            x_btd = nnx.merge(graph, layer)(x_btd, positions_bt, attention)
            return x_btd, kept

        return jax.lax.scan(jax.checkpoint(body) if remat else body, x_btd, layers)


def segment_positions(segments_bt: jax.Array) -> jax.Array:
    """Position of every token within its segment, from 0; padding gets 0.

    Segments are contiguous runs of one positive id. Padding before a segment does not count.
    """
    index = jnp.broadcast_to(jnp.arange(segments_bt.shape[1]), segments_bt.shape)
    before = jnp.pad(segments_bt, ((0, 0), (1, 0)))[:, :-1]
    starts = jax.lax.cummax(jnp.where(segments_bt != before, index, 0), axis=1)
    return jnp.where(segments_bt > 0, index - starts, 0).astype(jnp.int32)


def causal_segment_mask(segments_bt: jax.Array) -> jax.Array:
    """Boolean [b, t, s]: may token t look at token s?"""
    same = segments_bt[:, :, None] == segments_bt[:, None, :]
    real = (segments_bt > 0)[:, None, :]
    causal = jnp.tril(jnp.ones((segments_bt.shape[1],) * 2, bool))
    return same & real & causal
