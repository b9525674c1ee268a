"""Decoders with a scalar head: the preference model, and the policy with its value function."""

import jax
import jax.numpy as jnp
from flax import nnx

from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.layers import HeadParam


class ScalarHead(nnx.Module):
    """A linear map from hidden states [..., d] to float32 scalars [...], initialised to zero."""

    def __init__(self, d_model: int, bias: bool):
        self.kernel = HeadParam(jnp.zeros((d_model,), jnp.float32), axes=(None,))
        self.bias = HeadParam(jnp.zeros((), jnp.float32), axes=()) if bias else None

    def __call__(self, hidden: jax.Array) -> jax.Array:
        out = hidden.astype(jnp.float32) @ self.kernel[...]
        return out if self.bias is None else out + self.bias[...]


class PreferenceModel(nnx.Module):
    """Scores whole dialogues (Bai et al. 2022, section 4.1): higher is more preferred."""

    def __init__(
        self,
        config: DecoderConfig,
        lora: LoRAConfig | None = None,
        dtype: jnp.dtype = jnp.float32,
        frozen_layers: int = 0,
        *,
        rngs: nnx.Rngs,
    ):
        self.decoder = Decoder(config, lora, dtype, frozen_layers, rngs=rngs)
        self.head = ScalarHead(config.d_model, bias=False)  # a bias cancels in a comparison

    def __call__(self, tokens_bt: jax.Array, segments_bt: jax.Array) -> jax.Array:
        """Scores [b], float32, at the last real token of each row; one segment per row."""
        return self.head(self.features(tokens_bt, segments_bt))

    def features(self, tokens_bt: jax.Array, segments_bt: jax.Array) -> jax.Array:
        """What the head reads: hidden states [b, d] at those tokens."""
        return last_token(self.decoder.hidden(tokens_bt, segments_bt), segments_bt)

    def every_score(
        self, tokens_bt: jax.Array, segments_bt: jax.Array, remat: bool = False
    ) -> jax.Array:
        """Scores [b, t], float32, at every token, of what its segment has up to there."""
        return self.head(self.decoder.hidden(tokens_bt, segments_bt, remat))


class PolicyWithValue(nnx.Module):
    """A policy and its value function on a shared decoder."""

    def __init__(
        self,
        config: DecoderConfig,
        lora: LoRAConfig | None = None,
        dtype: jnp.dtype = jnp.float32,
        frozen_layers: int = 0,
        *,
        rngs: nnx.Rngs,
    ):
        self.decoder = Decoder(config, lora, dtype, frozen_layers, rngs=rngs)
        self.value_head = ScalarHead(config.d_model, bias=True)


def last_token(x_btd: jax.Array, segments_bt: jax.Array) -> jax.Array:
    """The entry [b, d] of the last real token of each row; padding may be on any side."""
    time = jnp.arange(segments_bt.shape[1])
    last_b = jnp.max(jnp.where(segments_bt > 0, time, 0), axis=1)
    return jnp.take_along_axis(x_btd, last_b[:, None, None], axis=1)[:, 0]
