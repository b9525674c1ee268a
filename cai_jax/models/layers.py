"""The pieces of a decoder block: projections, norms, rotary embedding, attention."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.models.slices import on_one_cpu
from cai_jax.parallel.mesh import gathered

MASKED_LOGIT = -1e30  # finite, so that the softmax of a fully masked row is not NaN
CACHED_LOGITS = 2**20  # float32: 4 MiB, which the caches of two cores hold


class LoRAParam(nnx.Param):
    """A parameter of a low-rank update. Training selects parameters by this type."""


class HeadParam(nnx.Param):
    """A parameter of a scalar head on top of a decoder. It is always trained."""


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """``x @ kernel`` of two arrays of one dtype, in float32; their gradients are in that dtype.

    Plain autodiff multiplies a float32 cotangent with a bfloat16 kernel. CPU and TPU run that at
    float32 speed: the backward pass is 1.6 times slower on a CPU with bfloat16 instructions.
    """
    return _multiply(x, kernel)


def _multiply(x: jax.Array, kernel: jax.Array) -> jax.Array:
    return jnp.einsum("...i,io->...o", x, kernel, preferred_element_type=jnp.float32)


_MatmulResiduals = tuple[jax.Array, jax.Array]


def _matmul_fwd(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, _MatmulResiduals]:
    # Not ``matmul``, in which policies of rematerialisation would see no dot that they could keep.
    return _multiply(x, kernel), (x, kernel)


def _matmul_bwd(residuals: _MatmulResiduals, grad: jax.Array) -> _MatmulResiduals:
    x, kernel = residuals
    grad = grad.astype(x.dtype)
    grad_x = jnp.einsum("...o,io->...i", grad, kernel, preferred_element_type=jnp.float32)
    x_bi, grad_bo = x.reshape(-1, x.shape[-1]), grad.reshape(-1, grad.shape[-1])
    grad_io = jnp.einsum("bi,bo->io", x_bi, grad_bo, preferred_element_type=jnp.float32)
    return grad_x.astype(x.dtype), grad_io.astype(kernel.dtype)


matmul.defvjp(_matmul_fwd, _matmul_bwd)


class Linear(nnx.Module):
    """A stack of projections, one per layer, each with an optional bias and LoRA update.

    ``kernel`` is [layers, i, o]; the scan over layers strips the leading axis.
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
        axis_in, axis_out = self.axes
        read = lambda weight, *axes: gathered(weight[...].astype(x.dtype), axes)
        out = matmul(x, read(self.kernel, axis_in, axis_out))
        # Summed before it is rounded: a small update of a bfloat16 output would be rounded away.
        if self.has_bias:
            out += self.bias[...].astype(x.dtype)
        if self.lora_scale is not None:
            low = matmul(x, read(self.lora_a, axis_in, "lora_rank")).astype(x.dtype)
            out += matmul(low, read(self.lora_b, "lora_rank", axis_out)) * self.lora_scale
        return out.astype(x.dtype)


class Norm(nnx.Module):
    """RMS norm, or layer norm with a bias, over the last axis, computed in float32."""

    def __init__(self, config: DecoderConfig, shape: tuple[int, ...], axes: tuple[str | None, ...]):
        self.kind, self.eps, self.offset = config.norm, config.norm_eps, config.norm_offset
        initial = jnp.full(shape, 1.0 - self.offset, jnp.float32)
        self.scale = nnx.Param(initial, axes=axes)
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
    """The activation function of an MLP, by its name in DecoderConfig."""
    if name == "silu":
        return jax.nn.silu(x)
    return jax.nn.gelu(x, approximate=name == "gelu_tanh")


class Rotation(NamedTuple):
    """By how much rotary embeddings turn each token, float32."""

    sin_btr: jax.Array
    cos_btr: jax.Array


def rotation(positions_bt: jax.Array, frequencies_r: jax.Array | np.ndarray) -> Rotation:
    """The rotation of tokens at some positions; ``frequencies_r`` are in radians per position."""
    angles_btr = positions_bt[..., None].astype(jnp.float32) * frequencies_r
    return Rotation(jnp.sin(angles_btr), jnp.cos(angles_btr))


def rotate(x_bthn: jax.Array, by: Rotation) -> jax.Array:
    """Rotary position embedding (Su et al. 2021), pairing halves as Hugging Face checkpoints do.

    It rotates the first ``2 * r`` dimensions of each head and passes the rest.
    """
    sin, cos = (x[:, :, None] for x in by)
    rotary, rest = jnp.split(x_bthn, [2 * sin.shape[-1]], axis=-1)
    first_bthr, second_bthr = jnp.split(rotary.astype(jnp.float32), 2, axis=-1)
    parts = [first_bthr * cos - second_bthr * sin, second_bthr * cos + first_bthr * sin]
    rotated = jnp.concatenate(parts, axis=-1).astype(x_bthn.dtype)
    return jnp.concatenate([rotated, rest], axis=-1) if rest.shape[-1] else rotated


def softcap(x: jax.Array, cap: float) -> jax.Array:
    """Soft cap: squashes x to (-cap, cap) (Gemma 2). Cap 0 returns x unchanged."""
    return cap * jnp.tanh(x / cap) if cap else x


def attend(
    q_bthn: jax.Array,
    keys: jax.Array,
    v_bksn: jax.Array,
    mask_bts: jax.Array,
    scale: float,
    cap: float = 0.0,
    positions_last: bool = False,
) -> jax.Array:
    """Grouped-query attention (Ainslie et al. 2023), softmax in float32.

    Values are [b, k, s, n], and keys too unless their positions are last. These are the layouts of
    the cache, and a CPU multiplies them without a transpose (decoding and training are 2 to 4 times
    faster there).

    Args:
      q_bthn: queries.
      keys: [b, k, s, n], or [b, k, n, s].
      v_bksn: values.
      mask_bts: bool, whether token t attends to token s.
      scale: factor on the logits.
      cap: soft cap on the logits; 0 is none.
      positions_last: which of the two the keys are.

    Returns:
      [b, t, h * n] in the dtype of the values.
    """
    (b, t, h, _), s = q_bthn.shape, v_bksn.shape[2]
    some = partial(_attend, scale=scale, cap=cap, positions_last=positions_last)
    rows = max(1, CACHED_LOGITS // (h * t * s))
    if b <= rows or not on_one_cpu():
        return some(q_bthn, keys, v_bksn, mask_bts)
    # A CPU waits for memory where the logits of all rows are more than its caches hold.
    rows = next(r for r in range(rows, 0, -1) if b % r == 0)
    parts = jax.tree.map(
        lambda x: x.reshape(b // rows, rows, *x.shape[1:]), (q_bthn, keys, v_bksn, mask_bts)
    )
    return jax.lax.map(lambda part: some(*part), parts).reshape(b, t, -1)


def _attend(
    q_bthn: jax.Array,
    keys: jax.Array,
    v_bksn: jax.Array,
    mask_bts: jax.Array,
    scale: float,
    cap: float,
    positions_last: bool,
) -> jax.Array:
    b, t, h, n = q_bthn.shape
    k, s = v_bksn.shape[1:3]
    g = h // k
    # The g query heads of a key-value head are rows of one matmul: q is the joint axis of g and t.
    q_bkgtn = q_bthn.reshape(b, t, k, g, n).transpose(0, 2, 3, 1, 4)
    q_bkqn = q_bkgtn.reshape(b, k, g * t, n)
    product = "bkqn,bkns->bkqs" if positions_last else "bkqn,bksn->bkqs"
    logits_bkqs = jnp.einsum(product, q_bkqn, keys, preferred_element_type=jnp.float32)
    logits_bkgts = softcap(logits_bkqs.reshape(b, k, g, t, s) * scale, cap)
    logits_bkgts = jnp.where(mask_bts[:, None, None], logits_bkgts, MASKED_LOGIT)
    weights_bkgts = jax.nn.softmax(logits_bkgts, axis=-1).astype(v_bksn.dtype)
    weights_bkqs = weights_bkgts.reshape(b, k, g * t, s)
    out_bkqn = jnp.einsum(
        "bkqs,bksn->bkqn", weights_bkqs, v_bksn, preferred_element_type=jnp.float32
    )
    out_btkgn = out_bkqn.reshape(b, k, g, t, n).transpose(0, 3, 1, 2, 4)
    return out_btkgn.reshape(b, t, h * n).astype(v_bksn.dtype)
