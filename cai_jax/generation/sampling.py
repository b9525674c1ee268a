"""Drawing tokens from logits."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cai_jax.parallel.mesh import constrain


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the defaults are the model's own distribution."""

    temperature: float = 1.0  # 0: always the likeliest token
    top_k: int = 0  # keep the k likeliest tokens; 0: all
    top_p: float = 1.0  # keep the fewest tokens of at least this probability; 1: all


def sampling_logits(logits_bv: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits of the distribution that is sampled: divided by temperature, then truncated.

    top-k is taken first and top-p of what is left. Tokens outside get minus infinity.
    """
    logits_bv = logits_bv / (sampling.temperature or 1.0)
    top_k = min(sampling.top_k or logits_bv.shape[-1], logits_bv.shape[-1])
    if top_k == logits_bv.shape[-1] and sampling.top_p >= 1.0:
        return logits_bv
    ordered_bk = jax.lax.top_k(logits_bv, top_k)[0]
    kept_b = jnp.full(ordered_bk.shape[0], top_k)
    if sampling.top_p < 1.0:
        probabilities = jax.nn.softmax(ordered_bk, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        kept_b = jnp.sum(before < sampling.top_p, axis=-1)
    least_b1 = jnp.take_along_axis(ordered_bk, kept_b[:, None] - 1, axis=-1)
    above_bv, tied_bv = logits_bv > least_b1, logits_bv == least_b1
    # Of tokens that tie for the last places, the first ones get them.
    room_b1 = kept_b[:, None] - jnp.sum(above_bv, axis=-1, keepdims=True)
    kept_bv = above_bv | (tied_bv & (jnp.cumsum(tied_bv, axis=-1) <= room_b1))
    return jnp.where(kept_bv, logits_bv, -jnp.inf)


def inverse_cdf(probabilities_bv: jax.Array, uniform_b: jax.Array) -> jax.Array:
    """The token at which each row's cumulative probability passes its uniform number in [0, 1).

    One random number a row where Gumbel noise takes one a token of the vocabulary (measured a
    quarter of a decoding step on CPU). Sums run over blocks first, so that the cumulative sum is
    short. Tokens of probability 0 are never drawn, whatever is rounded.

    Returns:
      int32 [b].
    """
    b, v = probabilities_bv.shape
    blocks, width = _blocks(v)
    padded_bv = jnp.pad(probabilities_bv, ((0, 0), (0, blocks * width - v)))
    blocks_bkw = padded_bv.reshape(b, blocks, width)
    ends_bk = _ends(constrain(jnp.sum(blocks_bkw, axis=-1), "batch", None))
    block_b, before_b = _pass(ends_bk, uniform_b * ends_bk[:, -1])
    block_bw = jnp.take_along_axis(blocks_bkw, block_b[:, None, None], axis=1)[:, 0]
    ends_bw = _ends(constrain(block_bw, "batch", None))
    inside_b, _ = _pass(ends_bw, uniform_b * ends_bk[:, -1] - before_b)
    return block_b * width + inside_b


def _blocks(v: int) -> tuple[int, int]:
    """Number and width of the blocks that ``v`` tokens are summed in, both near the square root.

    A power of two of them where it divides ``v``: a vocabulary that is split over devices then
    falls into whole blocks, and no probabilities travel, only the sums of blocks.
    """
    side = math.isqrt(v - 1) + 1
    blocks = math.gcd(v, 1 << (side - 1).bit_length())
    return (blocks, v // blocks) if 4 * blocks > side else (side, side)


def _ends(mass_bn: jax.Array) -> jax.Array:
    """Cumulative sums that never fall, nor rise where there is no mass.

    XLA sums long rows in pieces, so that rounding alone would do both.
    """
    sums_bn = jnp.where(mass_bn > 0, jnp.cumsum(mass_bn, axis=-1), 0.0)
    return jax.lax.cummax(sums_bn, axis=mass_bn.ndim - 1)


def _pass(ends_bn: jax.Array, target_b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index whose end lies above the target, and the end before it."""
    # Rounding may put the target at or past the last end; the last step upward is meant then.
    target_b = jnp.minimum(target_b, jnp.nextafter(ends_bn[:, -1], 0.0))
    index_b = jnp.sum(ends_bn <= target_b[:, None], axis=-1, dtype=jnp.int32)
    padded = jnp.pad(ends_bn, ((0, 0), (1, 0)))
    return index_b, jnp.take_along_axis(padded, index_b[:, None], axis=-1)[:, 0]


def sample(
    logits_bv: jax.Array, keys_b: jax.Array, sampling: Sampling
) -> tuple[jax.Array, jax.Array]:
    """One token a row, by the row's own key, and its log-probability under what was sampled.

    Returns:
      int32 tokens [b] and float32 log-probabilities [b].
    """
    logits_bv = sampling_logits(logits_bv, sampling)
    if sampling.temperature == 0:
        tokens = jnp.argmax(logits_bv, axis=-1)
    else:
        uniform_b = jax.vmap(jax.random.uniform)(keys_b)
        tokens = inverse_cdf(jax.nn.softmax(logits_bv, axis=-1), uniform_b)
    chosen = jnp.take_along_axis(logits_bv, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), chosen - jax.nn.logsumexp(logits_bv, axis=-1)
