"""Fused attention over whole sequences: no [t, s] array of logits in memory.

The kernels are those that JAX keeps: splash attention (Pallas) on TPUs, cuDNN's on NVIDIA GPUs.
"""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.sharding import PartitionSpec

from cai_jax.parallel.mesh import partition_spec

_LANES = 128  # of a TPU's vector unit: the kernel's blocks are multiples of it
_BLOCK = 512  # queries or keys in a block; larger ones need more than a v5e core's fast memory


def splash_attend(
    q_bthn: jax.Array,
    k_bksn: jax.Array,
    v_bksn: jax.Array,
    segments_bt: jax.Array,
    scale: float,
    window: int | None,
    cap: float = 0.0,
    interpret: bool = False,
) -> jax.Array:
    """Causal attention within segments, on TPUs.

    Args:
      q_bthn: queries.
      k_bksn: keys, as many as queries.
      v_bksn: values.
      segments_bt: int32; 0 is padding.
      scale: factor on the logits.
      window: tokens that a token sees, itself included; None: all earlier ones.
      cap: soft cap of the logits; 0 is none.
      interpret: run the kernel's operations one by one, on any device; for tests.

    Returns:
      [b, t, h * n] in the type of the values; of padding, numbers without meaning.
    """
    b, t, h, n = q_bthn.shape
    room = -t % _LANES
    pad = lambda x, axis: jnp.pad(x, [(0, room if i == axis else 0) for i in range(x.ndim)])
    q_bhtn = pad((q_bthn * scale).astype(q_bthn.dtype).swapaxes(1, 2), 2)
    k_bksn, v_bksn, segments_bt = pad(k_bksn, 2), pad(v_bksn, 2), pad(segments_bt, 1)
    shape = (t + room, t + room)
    seen = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
    block = next(size for size in range(_BLOCK, 0, -_LANES) if shape[0] % size == 0)
    blocks = splash.BlockSizes(*[block] * 6, *[None] * 2, use_fused_bwd_kernel=True)

    def one_device(q_bhtn, k_bksn, v_bksn, segments_bt):
        kernel = splash.make_splash_mha(
            masks.MultiHeadMask([seen] * q_bhtn.shape[1]),
            block_sizes=blocks,
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=cap or None,
            interpret=interpret,
        )
        rows = lambda q, k, v, s: kernel(q, k, v, segment_ids=splash.SegmentIds(s, s))
        return jax.vmap(rows)(q_bhtn, k_bksn, v_bksn, segments_bt)

    out_bhtn = _each_device(one_device)(q_bhtn, k_bksn, v_bksn, segments_bt)
    return out_bhtn[:, :, :t].swapaxes(1, 2).reshape(b, t, h * n).astype(v_bksn.dtype)


def cudnn_takes(q_bthn: jax.Array) -> bool:
    """Whether cuDNN multiplies such queries under a mask, forward and backward, on any GPU."""
    _, t, _, n = q_bthn.shape
    return q_bthn.dtype == jnp.bfloat16 and t % 2 == 0 and n % 8 == 0 and n <= 128


def cudnn_attend(
    q_bthn: jax.Array,
    k_bksn: jax.Array,
    v_bksn: jax.Array,
    mask_bts: jax.Array,
    scale: float,
    implementation: str = "cudnn",
) -> jax.Array:
    """Masked attention on NVIDIA GPUs, in bfloat16; arguments as those of ``layers.attend``.

    ``implementation`` "xla" runs the same arguments anywhere, for tests.
    """
    b, t, h, n = q_bthn.shape
    out_bthn = jax.nn.dot_product_attention(
        q_bthn,
        k_bksn.swapaxes(1, 2),
        v_bksn.swapaxes(1, 2),
        mask=mask_bts[:, None],
        scale=scale,
        implementation=implementation,
    )
    return out_bthn.reshape(b, t, h * n)


def _each_device(function):
    """Runs on every device's rows and heads alone: the compiler cannot split a Pallas kernel."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return function

    def split(q_bhtn, k_bksn, v_bksn, segments_bt):
        spec = lambda x: partition_spec(("batch", "heads", None, None), x.shape, mesh)
        q, k, rows = spec(q_bhtn), spec(k_bksn), spec(segments_bt[:, None, None])
        if k[1] != q[1]:  # too few key heads for the ways of tensor: every way needs its own copy
            groups = q_bhtn.shape[1] // k_bksn.shape[1]
            k_bksn, v_bksn = (jnp.repeat(x, groups, axis=1) for x in (k_bksn, v_bksn))
            k = q
        segments = PartitionSpec(rows[0], None)
        return jax.shard_map(
            function, mesh=mesh, in_specs=(q, k, k, segments), out_specs=q, check_vma=False
        )(q_bhtn, k_bksn, v_bksn, segments_bt)

    return split
