"""Statistics over the unmasked entries of padded arrays. Under jit they are global over devices."""

import jax
import jax.numpy as jnp


def masked_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Float32 mean of x where the mask is 1; 0 if it is 1 nowhere. The shapes are equal."""
    mask = mask.astype(jnp.float32)
    return jnp.sum(x * mask) / jnp.maximum(jnp.sum(mask), 1.0)


def masked_variance(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Float32 variance of x where the mask is 1."""
    return masked_mean((x - masked_mean(x, mask)) ** 2, mask)


def whiten(x: jax.Array, mask: jax.Array, judged: jax.Array) -> jax.Array:
    """Scales x to variance 1 over ``judged``, and shifts it to mean 0 there; 0 outside the mask.

    What is in the mask alone is scaled only, so that no mean changes its sign.
    """
    shift = jnp.where(judged > 0, masked_mean(x, judged), 0.0)
    whitened = (x - shift) * jax.lax.rsqrt(masked_variance(x, judged) + 1e-8)
    return jnp.where(mask > 0, whitened, 0.0)
