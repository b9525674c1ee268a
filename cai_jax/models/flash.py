"""Fused attention over whole sequences: no [t, s] array of logits in memory.

The kernels come with JAX: splash attention (Pallas) for TPUs, cuDNN's for NVIDIA GPUs.
"""

from collections.abc import Callable
from typing import Literal

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

_LANES = 128  # lanes of a TPU's vector unit; block sizes are multiples of it
_BLOCK = 512  # largest block of queries or keys; larger ones exceed the VMEM of a v5e core

# Queries [b,h,t,n], keys and values [b,k,s,n], segments [b,t] to outputs [b,h,t,n].
_Kernel = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


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
      k_bksn: keys; s equals t.
      v_bksn: values.
      segments_bt: int32; 0 is padding.
      scale: factor on the logits.
      window: tokens that a token attends to, itself included; None: all earlier ones.
      cap: soft cap on the logits; 0 is none.
      interpret: run the kernel in Pallas' interpreter, on any device; for tests.

    Returns:
      [b, t, h * n] in the dtype of the values; undefined at padding.
    """
    b, t, h, n = q_bthn.shape
    padding = -t % _LANES
    pad = lambda x, axis: jnp.pad(x, [(0, padding if i == axis else 0) for i in range(x.ndim)])
    q_bhtn = pad((q_bthn * scale).astype(q_bthn.dtype).swapaxes(1, 2), 2)
    k_bksn, v_bksn, segments_bt = pad(k_bksn, 2), pad(v_bksn, 2), pad(segments_bt, 1)
    shape = (t + padding, t + padding)
    mask = masks.LocalMask(shape, (window - 1, 0), 0) if window else masks.CausalMask(shape)
    block = next(size for size in range(_BLOCK, 0, -_LANES) if shape[0] % size == 0)
    block_sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )

    def one_device(
        q_bhtn: jax.Array, k_bksn: jax.Array, v_bksn: jax.Array, segments_bt: jax.Array
    ) -> jax.Array:
        kernel = splash.make_splash_mha(
            masks.MultiHeadMask([mask] * q_bhtn.shape[1]),
            block_sizes=block_sizes,
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=cap or None,
            interpret=interpret,
        )
        row = lambda q, k, v, s: kernel(q, k, v, segment_ids=splash.SegmentIds(s, s))
        return jax.vmap(row)(q_bhtn, k_bksn, v_bksn, segments_bt)

    out_bhtn = _per_device(one_device)(q_bhtn, k_bksn, v_bksn, segments_bt)
    return out_bhtn[:, :, :t].swapaxes(1, 2).reshape(b, t, h * n).astype(v_bksn.dtype)


def cudnn_takes(q_bthn: jax.Array) -> bool:
    """Whether cuDNN attends with a mask for these queries, forward and backward, on any GPU."""
    _, t, _, n = q_bthn.shape
    return q_bthn.dtype == jnp.bfloat16 and t % 2 == 0 and n % 8 == 0 and n <= 128


def cudnn_attend(
    q_bthn: jax.Array,
    k_bksn: jax.Array,
    v_bksn: jax.Array,
    mask_bts: jax.Array,
    scale: float,
    implementation: Literal["xla", "cudnn"] = "cudnn",
) -> jax.Array:
    """Masked attention on NVIDIA GPUs, in bfloat16; the arguments are those of ``layers.attend``.

    ``implementation`` "xla" runs on any device, for tests.
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


def _per_device(kernel: _Kernel) -> _Kernel:
    """Runs each device on its own rows and heads: the compiler cannot partition a Pallas kernel."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return kernel

    def sharded(
        q_bhtn: jax.Array, k_bksn: jax.Array, v_bksn: jax.Array, segments_bt: jax.Array
    ) -> jax.Array:
        spec = lambda x: partition_spec(("batch", "heads", None, None), x.shape, mesh)
        q, k, rows = spec(q_bhtn), spec(k_bksn), spec(segments_bt[:, None, None])
        if k[1] != q[1]:  # fewer key heads than shards of tensor: repeat them, one per query head
            groups = q_bhtn.shape[1] // k_bksn.shape[1]
            k_bksn, v_bksn = (jnp.repeat(x, groups, axis=1) for x in (k_bksn, v_bksn))
            k = q
        segments = PartitionSpec(rows[0], None)
        return jax.shard_map(
            kernel, mesh=mesh, in_specs=(q, k, k, segments), out_specs=q, check_vma=False
        )(q_bhtn, k_bksn, v_bksn, segments_bt)

    return sharded
