"""A decoder-only transformer, driven by its config. Layers are stacked and scanned."""

from collections.abc import Callable
from functools import partial
from typing import Generic, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.models.flash import cudnn_attend, cudnn_takes, splash_attend
from cai_jax.models.layers import (
    Linear,
    Norm,
    Rotation,
    activate,
    attend,
    rotate,
    rotation,
    softcap,
)
from cai_jax.models.slices import on_cpu, scan, take
from cai_jax.parallel.mesh import constrain, gathered
from cai_jax.parallel.program import Array

# From rotated queries [b,t,h,n], keys and values [b,k,t,n] to attention outputs [b,t,h*n].
Attend = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


class KVCache(NamedTuple, Generic[Array]):
    """Keys and values of the tokens so far, one array per layer.

    XLA updates separate arrays in place, but copies a stacked array at every step (decoding is 2
    to 3 times slower with it on CPU).
    """

    keys: tuple[Array, ...]  # num_layers of [b, k, s, n]; float32 ones: see ``cached_keys``
    values: tuple[Array, ...]  # [b, k, s, n]
    lengths_b: Array  # int32: each row's tokens fill its positions from 0 on


class Prefix(NamedTuple, Generic[Array]):
    """What rows begin with, read once: keys and values [layers, b, k, s, n].

    One for each row, or for each of several rows side by side.
    """

    keys: Array
    values: Array
    lengths_b: Array  # int32: real tokens, from the first position on


class Layers(NamedTuple):
    """Inputs of a block that differ by layer: of all layers (leading axis) or of one."""

    block: nnx.State
    rope: jax.Array | None  # int32: its kind of rotation; None: there is one
    window: jax.Array | None  # int32: tokens that a token attends to; None: no layer has a window


class Block(nnx.Module):
    """All transformer blocks of a decoder, stacked along a leading layer axis."""

    def __init__(self, config: DecoderConfig, lora: LoRAConfig | None, *, rngs: nnx.Rngs):
        c, layers = config, config.num_layers
        self.config = config
        heads, kv_heads = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim

        def linear(size_in: int, size_out: int, axes: tuple[str, str], bias: bool) -> Linear:
            return Linear(layers, size_in, size_out, axes, bias, lora, rngs=rngs)

        def norm(size: int) -> Norm:
            return Norm(c, (layers, size), ("layers", None))

        self.attention_norm = norm(c.d_model)
        self.q = linear(c.d_model, heads, ("embed", "heads"), c.qkv_bias)
        self.k = linear(c.d_model, kv_heads, ("embed", "kv_heads"), c.qkv_bias)
        self.v = linear(c.d_model, kv_heads, ("embed", "kv_heads"), c.qkv_bias)
        self.o = linear(heads, c.d_model, ("heads", "embed"), c.output_bias)
        if c.qk_norm:
            self.q_norm, self.k_norm = norm(c.head_dim), norm(c.head_dim)
        self.mlp_norm = norm(c.d_model)
        if c.gated_mlp:
            self.gate = linear(c.d_model, c.d_ff, ("embed", "mlp"), c.mlp_bias)
        self.up = linear(c.d_model, c.d_ff, ("embed", "mlp"), c.mlp_bias)
        self.down = linear(c.d_ff, c.d_model, ("mlp", "embed"), c.mlp_bias)
        if c.post_norms:
            self.attention_post_norm, self.mlp_post_norm = norm(c.d_model), norm(c.d_model)

    def __call__(
        self,
        x_btd: jax.Array,
        turn: Rotation,
        attention: Attend,
    ) -> jax.Array:
        c = self.config
        attended_btd = self._attend(self.attention_norm(x_btd), turn, attention)
        if c.post_norms:
            attended_btd = self.attention_post_norm(attended_btd)
        if c.parallel_residual:
            return constrain(
                x_btd + attended_btd + self._mlp(self.mlp_norm(x_btd)), "batch", None, None
            )
        x_btd += attended_btd
        out_btd = self._mlp(self.mlp_norm(x_btd))
        if c.post_norms:
            out_btd = self.mlp_post_norm(out_btd)
        return constrain(x_btd + out_btd, "batch", None, None)

    def _attend(
        self,
        x_btd: jax.Array,
        turn: Rotation,
        attention: Attend,
    ) -> jax.Array:
        c = self.config
        b, t, _ = x_btd.shape
        q_bthn = self.q(x_btd).reshape(b, t, c.num_heads, c.head_dim)
        k_btkn = self.k(x_btd).reshape(b, t, c.num_kv_heads, c.head_dim)
        v_btkn = self.v(x_btd).reshape(b, t, c.num_kv_heads, c.head_dim)
        if c.qk_norm:
            q_bthn, k_btkn = self.q_norm(q_bthn), self.k_norm(k_btkn)
        q_bthn = rotate(q_bthn, turn)
        q_bthn = constrain(q_bthn, "batch", None, "heads", None)
        k_btkn = rotate(k_btkn, turn)
        return self.o(attention(q_bthn, k_btkn.swapaxes(1, 2), v_btkn.swapaxes(1, 2)))

    def _mlp(self, x_btd: jax.Array) -> jax.Array:
        c = self.config
        up_btf = self.up(x_btd)
        if c.gated_mlp:
            hidden_btf = activate(self.gate(x_btd), c.activation) * up_btf
        else:
            hidden_btf = activate(up_btf, c.activation)
        return self.down(constrain(hidden_btf, "batch", None, "mlp"))


class Decoder(nnx.Module):
    """Maps token ids to hidden states; ``logits`` projects hidden states to the vocabulary.

    Args:
      config: sizes and constants.
      lora: adds a low-rank update, initialised to zero, to every projection of every block.
      dtype: compute dtype of activations and matmuls; parameters keep their storage dtype.
      frozen_layers: number of lower layers without a gradient; training takes that much less time
        and memory.
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
        init = nnx.initializers.normal(stddev=config.d_model**-0.5)
        table = (config.vocab_size, config.d_model)
        self.embedding = nnx.Param(init(rngs.params(), table, jnp.float32), axes=("vocab", "embed"))
        self.blocks = Block(config, lora, rngs=rngs)
        self.norm = Norm(config, (config.d_model,), (None,))
        if not config.tie_embeddings:
            self.output = nnx.Param(
                init(rngs.params(), table, jnp.float32), axes=("vocab", "embed")
            )

    def trunk(self, tokens_bt: jax.Array, segments_bt: jax.Array) -> jax.Array:
        """Hidden states [b, t, d] after the embedding and the frozen layers, without a gradient.

        Models that differ only in their trained layers share them: PPO computes them once per
        rollout, for the policy, the reference and every epoch.
        """
        frozen = jax.tree.map(lambda p: p[: self.frozen_layers], self._layers())
        x_btd, _ = self._scan_blocks(
            frozen, self._embed(tokens_bt), segments_bt, remat=False, keep_kv=False
        )
        return jax.lax.stop_gradient(x_btd)

    def hidden(
        self,
        tokens_bt: jax.Array,
        segments_bt: jax.Array,
        remat: bool = False,
        trunk_btd: jax.Array | None = None,
        prefix: Prefix | None = None,
    ) -> jax.Array:
        """Hidden states of whole sequences, for training and scoring.

        Args:
          tokens_bt: int32 token ids.
          segments_bt: int32 segment ids; 0 is padding. Tokens attend to earlier tokens of their own
            segment, so that a row may pack several sequences. Padding may be anywhere.
          remat: recompute each block in the backward pass instead of storing its activations.
          trunk_btd: output of ``trunk`` for these tokens; None computes it.
          prefix: what every segment of a row goes on from, for scoring: frozen layers are no trunk.

        Returns:
          [b, t, d] after the last norm, in the compute dtype.
        """
        layers = self._layers()
        if trunk_btd is None and self.frozen_layers and prefix is None:
            trunk_btd = self.trunk(tokens_bt, segments_bt)
        if trunk_btd is None:
            x_btd = self._embed(tokens_bt)
        else:
            x_btd = trunk_btd
            layers = jax.tree.map(lambda p: p[self.frozen_layers :], layers)
        x_btd, _ = self._scan_blocks(layers, x_btd, segments_bt, remat, False, prefix)
        return self.norm(x_btd)

    def prefill(
        self, tokens_bt: jax.Array, segments_bt: jax.Array, prefix: Prefix | None = None
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Hidden states [b, t, d] of prompts, and their keys and values [layers, b, k, t, n].

        With a prefix, of what comes after it.
        """
        x_btd, (keys, values) = self._scan_blocks(
            self._layers(), self._embed(tokens_bt), segments_bt, False, True, prefix
        )
        return self.norm(x_btd), keys, values

    def unstacked(self) -> list[Layers] | None:
        """The inputs of each block by itself, for a loop of ``extend``; None: they stay stacked.

        A CPU copies the float32 weights of a block out of the stack before it multiplies by them,
        a quarter of a step's time, and does so here once. It takes as much memory again.
        """
        if not on_cpu() or self.dtype != jnp.float32:
            return None
        layers = self._layers()
        return [take(layers, i) for i in range(self.config.num_layers)]

    def extend(
        self,
        tokens_bt: jax.Array,
        new_b: jax.Array,
        cache: KVCache,
        by_layer: list[Layers] | None = None,
    ) -> tuple[jax.Array, KVCache]:
        """Hidden states [b, t, d] of tokens after those of the cache, and the cache with them.

        Args:
          tokens_bt: int32; decoding has one token a row.
          new_b: int32, how many of them are real; the rest, at the end, is overwritten by the next
            tokens of the row.
          cache: of all earlier tokens, with room for t more in every row.
          by_layer: from ``unstacked``.
        """
        c, t = self.config, tokens_bt.shape[1]
        positions_bt = cache.lengths_b[:, None] + jnp.arange(t, dtype=jnp.int32)
        age_bts = positions_bt[:, :, None] - jnp.arange(cache.values[0].shape[2])
        x_btd = self._embed(tokens_bt)
        graph, _ = nnx.split(self.blocks)
        layers = self._layers()
        turns, kinds = self._turns(positions_bt), c.rotary_frequencies[1]
        keys, values = list(cache.keys), list(cache.values)
        for i in range(c.num_layers):
            block, _, window = by_layer[i] if by_layer else take(layers, i)

            def attention(
                q_bthn: jax.Array,
                k_bktn: jax.Array,
                v_bktn: jax.Array,
                i: int = i,
                window: jax.Array | None = window,
            ) -> jax.Array:
                axis = positions_axis(k_bktn.dtype)
                keys[i] = _write(keys[i], cached_keys(k_bktn), cache.lengths_b, axis)
                values[i] = _write(values[i], v_bktn, cache.lengths_b, 2)
                mask_bts = age_bts >= 0
                if window is not None:
                    mask_bts &= age_bts < window
                return self._attend(q_bthn, keys[i], values[i], mask_bts, axis == 3)

            x_btd = nnx.merge(graph, block)(x_btd, turns[kinds[i]], attention)
        return self.norm(x_btd), KVCache(tuple(keys), tuple(values), cache.lengths_b + new_b)

    def output_table(self) -> jax.Array:
        """The projection to the vocabulary [v, d], gathered over fsdp.

        Code that computes logits in chunks calls this once, and so gathers once.
        """
        table = self.embedding if self.config.tie_embeddings else self.output
        return gathered(table[...], ("vocab", "embed"))

    def logits(self, hidden: jax.Array, table_vd: jax.Array | None = None) -> jax.Array:
        """Float32 logits [..., v] of hidden states [..., d]; the table is ``output_table()``."""
        table_vd = self.output_table() if table_vd is None else table_vd
        logits = jnp.einsum(
            "...d,vd->...v",
            hidden,
            table_vd.astype(hidden.dtype),
            preferred_element_type=jnp.float32,
        )
        return softcap(logits, self.config.logits_softcap)

    def _embed(self, tokens: jax.Array) -> jax.Array:
        scale = jnp.asarray(self.config.embedding_scale, self.dtype)
        embedded = take(self.embedding[...], tokens).astype(self.dtype) * scale
        return constrain(embedded, "batch", None, None)

    def _attend(
        self,
        q_bthn: jax.Array,
        keys: jax.Array,
        v_bksn: jax.Array,
        mask_bts: jax.Array,
        positions_last: bool = False,
    ) -> jax.Array:
        c = self.config
        scale = c.query_scale or c.head_dim**-0.5
        return attend(q_bthn, keys, v_bksn, mask_bts, scale, c.attention_softcap, positions_last)

    def _attend_rows(
        self,
        q_bthn: jax.Array,
        k_bksn: jax.Array,
        v_bksn: jax.Array,
        segments_bt: jax.Array,
        mask_bts: jax.Array,
        window: jax.Array | None,
    ) -> jax.Array:
        """Attention over whole rows, with the fused kernel of the config where it applies.

        Splash attention needs a static window, and the layers are scanned, so that all must have
        the same. ``cudnn_takes`` says what cuDNN needs.
        """
        c = self.config
        scale = c.query_scale or c.head_dim**-0.5
        kernel = c.execution.kernel
        if kernel == "splash" and c.one_window:
            limit = c.attention[0].window or None
            return splash_attend(
                q_bthn, k_bksn, v_bksn, segments_bt, scale, limit, c.attention_softcap
            )
        if window is not None:
            mask_bts &= _ages(mask_bts) < window
        if kernel == "cudnn" and not c.attention_softcap and cudnn_takes(q_bthn):
            return cudnn_attend(q_bthn, k_bksn, v_bksn, mask_bts, scale)
        return self._attend(q_bthn, k_bksn, v_bksn, mask_bts)

    def _layers(self) -> Layers:
        """The inputs of all blocks, stacked along a leading layer axis."""
        _, blocks = nnx.split(self.blocks)
        windows, (kinds, of_layer) = self.config.windows, self.config.rotary_frequencies
        return Layers(
            blocks,
            jnp.asarray(of_layer) if len(kinds) > 1 else None,
            None if windows is None else jnp.asarray(windows),
        )

    def _turns(self, positions_bt: jax.Array) -> list[Rotation]:
        """Each kind of rotation of tokens at some positions."""
        return [rotation(positions_bt, kind) for kind in self.config.rotary_frequencies[0]]

    def _scan_blocks(
        self,
        layers: Layers,
        x_btd: jax.Array,
        segments_bt: jax.Array,
        remat: bool,
        keep_kv: bool,
        prefix: Prefix | None = None,
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Runs consecutive blocks on x [b, t, d], whose segments go on from the prefix.

        Returns:
          Hidden states [b, t, d]; with ``keep_kv`` keys and values [layers, b, k, t, n], else ().
        """
        positions_bt = segment_positions(segments_bt)
        mask_bts = causal_segment_mask(segments_bt)
        graph, _ = nnx.split(self.blocks)
        if prefix:
            each = lambda held: jnp.repeat(held, len(x_btd) // len(held), axis=0)
            before_b = each(prefix.lengths_b)
            positions_bt += before_b[:, None]
            places_s = jnp.arange(prefix.keys.shape[3])
            age_bts = positions_bt[:, :, None] - places_s
            held_bts = jnp.broadcast_to(places_s < before_b[:, None, None], age_bts.shape)
        # Sines are of positions, and layers share them: they are not computed in each.
        turns = self._turns(positions_bt)

        def body(
            x_btd: jax.Array, inputs: tuple[Layers, tuple[jax.Array, ...]]
        ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            layer, before = inputs
            kv: tuple[jax.Array, ...] = ()

            def attention(q_bthn: jax.Array, k_bktn: jax.Array, v_bktn: jax.Array) -> jax.Array:
                nonlocal kv
                kv = (k_bktn, v_bktn) if keep_kv else ()
                if not before:
                    return self._attend_rows(
                        q_bthn, k_bktn, v_bktn, segments_bt, mask_bts, layer.window
                    )
                earlier_bts, own_bts = held_bts, mask_bts
                if layer.window is not None:
                    earlier_bts = earlier_bts & (age_bts < layer.window)
                    own_bts = own_bts & (_ages(own_bts) < layer.window)
                join = lambda old, new: jnp.concatenate([old, new], axis=2)
                seen_bts = join(earlier_bts, own_bts)
                k_bksn, v_bksn = join(each(before[0]), k_bktn), join(each(before[1]), v_bktn)
                return self._attend(q_bthn, k_bksn, v_bksn, seen_bts)

            block = nnx.merge(graph, layer.block)
            turn = turns[0]
            if layer.rope is not None:
                turn = jax.tree.map(lambda *kinds: jnp.stack(kinds)[layer.rope], *turns)
            return block(x_btd, turn, attention), kv

        policy = getattr(jax.checkpoint_policies, self.config.execution.remat)
        again = partial(jax.checkpoint, policy=policy) if remat else lambda body: body
        return scan(body, x_btd, (layers, (prefix.keys, prefix.values) if prefix else ()), again)


def positions_axis(dtype: jnp.dtype) -> int:
    """The axis of positions of keys in a cache."""
    return 3 if dtype == jnp.float32 else 2


def cached_keys(k_bktn: jax.Array) -> jax.Array:
    """Keys as a cache holds them: of float32 [b, k, n, t], else as they are.

    A CPU copies float32 keys [s, n] into that order before it multiplies by them, which takes it 4
    to 10 times as long as the matmul; decoding would pay it at every step. Bfloat16 keys it
    multiplies as they are.
    """
    return k_bktn.swapaxes(2, 3) if positions_axis(k_bktn.dtype) == 3 else k_bktn


def _write(cache: jax.Array, new: jax.Array, starts_b: jax.Array, axis: int) -> jax.Array:
    """The cache with new keys or values, in each row from its start on along an axis.

    XLA's CPU compiler scatters bfloat16 by way of float32, and so copies the cache twice; one new
    token a row is selected into it at half that cost.
    """

    def scatter(cache: jax.Array, new: jax.Array, starts_b: jax.Array) -> jax.Array:
        row = partial(jax.lax.dynamic_update_slice_in_dim, axis=axis - 1)
        return jax.vmap(row)(cache, new, starts_b)

    def select(cache: jax.Array, new: jax.Array, starts_b: jax.Array) -> jax.Array:
        here_bs = jnp.arange(cache.shape[axis]) == starts_b[:, None]
        others = [other for other in range(1, cache.ndim) if other != axis]
        return jnp.where(jnp.expand_dims(here_bs, others), new, cache)

    if cache.dtype == jnp.bfloat16 and new.shape[axis] == 1:
        written: jax.Array = jax.lax.platform_dependent(
            cache, new, starts_b, cpu=select, default=scatter
        )
        return written
    return scatter(cache, new, starts_b)


def segment_positions(segments_bt: jax.Array) -> jax.Array:
    """Positions [b, t], int32: of each token within its segment, from 0; 0 at padding.

    A segment is a contiguous run of one positive id. Padding before a segment does not count.
    """
    index = jnp.broadcast_to(jnp.arange(segments_bt.shape[1]), segments_bt.shape)
    before = jnp.pad(segments_bt, ((0, 0), (1, 0)))[:, :-1]
    starts = jax.lax.cummax(jnp.where(segments_bt != before, index, 0), axis=1)
    return jnp.where(segments_bt > 0, index - starts, 0).astype(jnp.int32)


def _ages(mask_bts: jax.Array) -> jax.Array:
    """Distances [t, s], int32: how many slots s is before t."""
    time = jnp.arange(mask_bts.shape[1])
    return time[:, None] - time[None, :]


def causal_segment_mask(segments_bt: jax.Array) -> jax.Array:
    """Mask [b, t, s], bool: whether token s is of the segment of token t and not after it."""
    same_bts = segments_bt[:, :, None] == segments_bt[:, None, :]
    real_b1s = (segments_bt > 0)[:, None, :]
    causal_ts = jnp.tril(jnp.ones((segments_bt.shape[1],) * 2, bool))
    return same_bts & real_b1s & causal_ts
