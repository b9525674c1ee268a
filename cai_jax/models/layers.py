"""The pieces of a decoder block: projections, norms, rotary embedding, attention."""

import jax
import jax.numpy as jnp
from flax import nnx

from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.parallel.mesh import gathered

MASKED_LOGIT = -1e30  # finite, so that a fully masked row softmaxes to numbers and not to NaN


class LoRAParam(nnx.Param):
    """A parameter of a low-rank update; its type is what training filters on."""


class HeadParam(nnx.Param):
    """A parameter of a scalar head on top of a decoder: always trained."""


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``x @ kernel`` in the type of x, accumulated in float32, backward products too.

    Autodiff alone would multiply a float32 cotangent with a bfloat16 kernel, which CPU and TPU
    run at float32 speed: measured 1.6 times slower backward on a CPU with bfloat16 instructions.
    """
    out = jnp.einsum("...i,io->...o", x, kernel, preferred_element_type=jnp.float32)
    return out.astype(x.dtype)


def _matmul_fwd(x, kernel):
    return matmul(x, kernel), (x, kernel)


def _matmul_bwd(residuals, grad):
    x, kernel = residuals
    grad = grad.astype(x.dtype)
    grad_x = jnp.einsum("...o,io->...i", grad, kernel, preferred_element_type=jnp.float32)
    x_2d, grad_2d = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    grad_kernel = jnp.einsum("ni,no->io", x_2d, grad_2d, preferred_element_type=jnp.float32)
    return grad_x.astype(x.dtype), grad_kernel.astype(kernel.dtype)


matmul.defvjp(_matmul_fwd, _matmul_bwd)


class Linear(nnx.Module):
    """A stack of projections, one a layer, each with an optional bias and LoRA update.

    ``kernel`` is [layers, in, out]; inside the scan over layers the leading axis is gone.
    """

    def __init__(
        self,
        layers: int,
        size_in: int,
        size_out: int,
        axes: tuple[str, str],
        bias: bool,
        lora: LoRAConfig | None,
        *,
        rngs: nnx.Rngs,
    ):
        init = nnx.initializers.lecun_normal(in_axis=-2, out_axis=-1, batch_axis=0)
        self.kernel = nnx.Param(
            init(rngs.params(), (layers, size_in, size_out), jnp.float32), axes=("layers", *axes)
        )
        if bias:
            self.bias = nnx.Param(
                jnp.zeros((layers, size_out), jnp.float32), axes=("layers", axes[1])
            )
        self.has_bias, self.axes = bias, axes
        self.lora_scale = lora.scale if lora else None
        if lora:
            self.lora_a = LoRAParam(
                init(rngs.params(), (layers, size_in, lora.rank), jnp.float32),
                axes=("layers", axes[0], "lora_rank"),
            )
            self.lora_b = LoRAParam(
                jnp.zeros((layers, lora.rank, size_out), jnp.float32),
                axes=("layers", "lora_rank", axes[1]),
            )

    def __call__(self, x: jax.Array) -> jax.Array:
        into, out_of = self.axes
        read = lambda weight, *axes: gathered(weight[...].astype(x.dtype), axes)
        out = matmul(x, read(self.kernel, into, out_of))
        if self.has_bias:
            out += self.bias[...].astype(x.dtype)
        if self.lora_scale is not None:
            low = matmul(x, read(self.lora_a, into, "lora_rank"))
            out += matmul(low, read(self.lora_b, "lora_rank", out_of)) * self.lora_scale
        return out


class Norm(nnx.Module):
    """Root-mean-square norm, or layer norm with a bias, over the last axis, in float32."""

    def __init__(self, config: DecoderConfig, shape: tuple[int, ...], axes: tuple[str | None, ...]):
        self.kind, self.eps, self.offset = config.norm, config.norm_eps, config.norm_offset
        start = jnp.full(shape, 1.0 - self.offset, jnp.float32)
        self.scale = nnx.Param(start, axes=axes)
        if self.kind == "layer":
            self.bias = nnx.Param(jnp.zeros(shape, jnp.float32), axes=axes)

    def __call__(self, x: jax.Array) -> jax.Array:
        x32 = x.astype(jnp.float32)
        if self.kind == "layer":
            x32 -= jnp.mean(x32, axis=-1, keepdims=True)
        x32 *= jax.lax.rsqrt(jnp.mean(x32 * x32, axis=-1, keepdims=True) + self.eps)
        x32 *= self.scale[...] + self.offset
        return (x32 + self.bias[...] if self.kind == "layer" else x32).astype(x.dtype)


def activate(x: jax.Array, name: str) -> jax.Array:
    """The non-linearity of an MLP, by its name in DecoderConfig."""
    if name == "silu":
        return jax.nn.silu(x)
    return jax.nn.gelu(x, approximate=name == "gelu_tanh")


def rotate(x_bthn: jax.Array, positions_bt: jax.Array, frequencies_r: jax.Array) -> jax.Array:
    """Rotary position embedding (Su et al. 2021) on halves, as Hugging Face checkpoints lay it.

    The first ``2 * len(frequencies_r)`` numbers of each head turn, the rest pass.
    """
    size = 2 * frequencies_r.shape[0]
    turned, kept = jnp.split(x_bthn, [size], axis=-1)
    angles = positions_bt[..., None, None].astype(jnp.float32) * frequencies_r
    sin, cos = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(turned.astype(jnp.float32), 2, axis=-1)
    parts = [first * cos - second * sin, second * cos + first * sin]
    turned = jnp.concatenate(parts, axis=-1).astype(x_bthn.dtype)
    return jnp.concatenate([turned, kept], axis=-1) if kept.shape[-1] else turned


def softcap(x: jax.Array, cap: float) -> jax.Array:
    """Squashes to between -cap and cap (Gemma 2); cap 0 leaves x as it is."""
    return cap * jnp.tanh(x / cap) if cap else x


def attend(
    q_bthn: jax.Array,
    k_bksn: jax.Array,
    v_bksn: jax.Array,
    mask_bts: jax.Array,
    scale: float,
    cap: float = 0.0,
) -> jax.Array:
    """Grouped-query attention; softmax in float32.

    Keys and values stand as [b, k, s, n]: the layout of the cache, and the one in which a CPU
    multiplies them without a transpose (2 to 4 times faster there, decoding and training).

    Args:
      q_bthn: queries.
      k_bksn: keys.
      v_bksn: values.
      mask_bts: bool: may token t look at token s?
      scale: factor on the logits.
      cap: their soft cap; 0 is none.

    Returns:
      [b, t, h * n] in the type of the values.
    """
    b, t, h, n = q_bthn.shape
    k, s = k_bksn.shape[1:3]
    group = h // k
    q_bkgtn = q_bthn.reshape(b, t, k, group, n).transpose(0, 2, 3, 1, 4).reshape(b, k, group * t, n)
    logits = jnp.einsum("bktn,bksn->bkts", q_bkgtn, k_bksn, preferred_element_type=jnp.float32)
    logits = softcap(logits.reshape(b, k, group, t, s) * scale, cap)
    logits = jnp.where(mask_bts[:, None, None], logits, MASKED_LOGIT)
    weights = jax.nn.softmax(logits, axis=-1).astype(v_bksn.dtype).reshape(b, k, group * t, s)
    out = jnp.einsum("bkts,bksn->bktn", weights, v_bksn, preferred_element_type=jnp.float32)
    out = out.reshape(b, k, group, t, n).transpose(0, 3, 1, 2, 4).reshape(b, t, h * n)
    return out.astype(v_bksn.dtype)
