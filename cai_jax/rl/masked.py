"""Statistics over the real entries of padded arrays. Under jit they are global, not per device."""

import jax
import jax.numpy as jnp


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of x where the mask is 1; 0 if it is nowhere."""
    mask = mask.astype(jnp.float32)
    return jnp.sum(x * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def whiten(x: jax.Array, mask: jax.Array, shift_mean: bool = True) -> jax.Array:
    """x at unit variance over the mask, and at mean 0 if ``shift_mean``; 0 outside."""
    mean = masked_mean(x, mask)
    variance = masked_mean((x - mean) ** 2, mask)
    white = (x - mean) * jax.lax.rsqrt(variance + 1e-8)
    return jnp.where(mask > 0, white if shift_mean else white + mean, 0.0)
