"""Drawing tokens from logits."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


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
    if 0 < sampling.top_k < logits_bv.shape[-1]:
        kth = jax.lax.top_k(logits_bv, sampling.top_k)[0][:, -1:]
        logits_bv = jnp.where(logits_bv < kth, -jnp.inf, logits_bv)
    if sampling.top_p < 1.0:
        ordered = jnp.sort(logits_bv, axis=-1, descending=True)
        probabilities = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(probabilities, axis=-1) - probabilities
        last = jnp.sum(before < sampling.top_p, axis=-1, keepdims=True) - 1
        threshold = jnp.take_along_axis(ordered, last, axis=-1)
        logits_bv = jnp.where(logits_bv < threshold, -jnp.inf, logits_bv)
    return logits_bv


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
        tokens = jax.vmap(jax.random.categorical)(keys_b, logits_bv)
    chosen = jnp.take_along_axis(logits_bv, tokens[:, None], axis=-1)[:, 0]
    return tokens.astype(jnp.int32), chosen - jax.nn.logsumexp(logits_bv, axis=-1)
