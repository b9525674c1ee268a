"""Sampling of tokens from logits."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from cai_jax.parallel.mesh import constrain


@dataclass(frozen=True)
class Sampling:
    """How tokens are sampled; the defaults are the model's own distribution."""

    temperature: float = 1.0  # 0: greedy
    top_k: int = 0  # keep the k most probable tokens; 0: all
    top_p: float = 1.0  # keep the fewest tokens that sum to at least this probability; 1: all


def sampling_logits(logits_bv: jax.Array, sampling: Sampling) -> jax.Array:
    """Logits [b, v] of the distribution that is sampled: divided by temperature, then truncated.

    Top-k truncates first, then top-p (Holtzman et al. 2020) the renormalised rest. Truncated tokens
    get minus infinity. Among tied logits the first tokens are kept.
    """
    logits_bv = logits_bv / (sampling.temperature or 1.0)
    top_k = min(sampling.top_k or logits_bv.shape[-1], logits_bv.shape[-1])
    if top_k == logits_bv.shape[-1] and sampling.top_p >= 1.0:
        return logits_bv
    ordered_bk = jax.lax.top_k(logits_bv, top_k)[0]
    kept_b = jnp.full(ordered_bk.shape[0], top_k)
    if sampling.top_p < 1.0:
        probabilities_bk = jax.nn.softmax(ordered_bk, axis=-1)
        before_bk = jnp.cumsum(probabilities_bk, axis=-1) - probabilities_bk
        kept_b = jnp.sum(before_bk < sampling.top_p, axis=-1)
    least_b1 = jnp.take_along_axis(ordered_bk, kept_b[:, None] - 1, axis=-1)
    above_bv, tied_bv = logits_bv > least_b1, logits_bv == least_b1
    # The first of the tied tokens take the places that are left.
    left_b1 = kept_b[:, None] - jnp.sum(above_bv, axis=-1, keepdims=True)
    late_bv = tied_bv & (jnp.cumsum(tied_bv, axis=-1) > left_b1)
    # NaN is not below anything, and so stays to be seen.
    return jnp.where((logits_bv < least_b1) | late_bv, -jnp.inf, logits_bv)


def inverse_cdf(probabilities_bv: jax.Array, uniform_b: jax.Array) -> jax.Array:
    """Samples by inverse transform: the token where the cumulative probability exceeds the uniform.

    It needs one random number per row, and Gumbel noise one per token of the vocabulary (a quarter
    of a decoding step on CPU). It sums blocks of tokens first, so that cumulative sums are short. A
    token of probability 0 is never sampled, however sums are rounded.

    Args:
      probabilities_bv: float32, need not sum to 1.
      uniform_b: float32 in [0, 1).

    Returns:
      int32 tokens [b].
    """
    b, v = probabilities_bv.shape
    blocks, width = _blocks(v)
    padded_bv = jnp.pad(probabilities_bv, ((0, 0), (0, blocks * width - v)))
    blocks_bkw = padded_bv.reshape(b, blocks, width)
    ends_bk = _ends(constrain(jnp.sum(blocks_bkw, axis=-1), "batch", None))
    block_b, before_b = _first_above(ends_bk, uniform_b * ends_bk[:, -1])
    block_bw = jnp.take_along_axis(blocks_bkw, block_b[:, None, None], axis=1)[:, 0]
    ends_bw = _ends(constrain(block_bw, "batch", None))
    offset_b, _ = _first_above(ends_bw, uniform_b * ends_bk[:, -1] - before_b)
    return block_b * width + offset_b


def _blocks(v: int) -> tuple[int, int]:
    """Number and width of the blocks of a vocabulary of ``v`` tokens, both near its square root.

    The number is a power of two if one near it divides ``v``. The shards of a vocabulary are then
    whole blocks, and devices exchange sums of blocks but no probabilities.
    """
    side = math.isqrt(v - 1) + 1
    blocks = math.gcd(v, 1 << (side - 1).bit_length())
    return (blocks, v // blocks) if 4 * blocks > side else (side, side)


def _ends(mass_bn: jax.Array) -> jax.Array:
    """Cumulative sums that never decrease, and stay equal where there is no mass.

    XLA sums long rows in pieces, and its rounding breaks both.
    """
    sums_bn = jnp.where(mass_bn > 0, jnp.cumsum(mass_bn, axis=-1), 0.0)
    return jax.lax.cummax(sums_bn, axis=mass_bn.ndim - 1)


def _first_above(ends_bn: jax.Array, target_b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """First index [b] whose end is above the target, and the end before it [b]."""
    # Rounding may put the target at or above the last end; the last entry with mass is right then.
    target_b = jnp.minimum(target_b, jnp.nextafter(ends_bn[:, -1], 0.0))
    index_b = jnp.sum(ends_bn <= target_b[:, None], axis=-1, dtype=jnp.int32)
    before_bn = jnp.pad(ends_bn, ((0, 0), (1, 0)))
    return index_b, jnp.take_along_axis(before_bn, index_b[:, None], axis=-1)[:, 0]


def sample(
    logits_bv: jax.Array, keys_b: jax.Array, sampling: Sampling
) -> tuple[jax.Array, jax.Array]:
    """One token per row, and its log-probability under the sampled (truncated) distribution.

    Args:
      logits_bv: float32.
      keys_b: one key per row, so that a row does not depend on its batch.
      sampling: temperature and truncation.

    Returns:
      int32 tokens [b] and float32 log-probabilities [b].
    """
    logits_bv = sampling_logits(logits_bv, sampling)
    if sampling.temperature == 0:
        tokens_b = jnp.argmax(logits_bv, axis=-1)
    else:
        uniform_b = jax.vmap(jax.random.uniform)(keys_b)
        tokens_b = inverse_cdf(jax.nn.softmax(logits_bv, axis=-1), uniform_b)
    chosen_b = jnp.take_along_axis(logits_bv, tokens_b[:, None], axis=-1)[:, 0]
    return tokens_b.astype(jnp.int32), chosen_b - jax.nn.logsumexp(logits_bv, axis=-1)
