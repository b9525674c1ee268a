"""Compute dtype and attention kernel that suit a platform."""

from pathlib import Path

import jax.numpy as jnp


def compute_dtype(name: str, platform: str) -> jnp.dtype:
    """The compute dtype: ``auto`` is bfloat16 if the hardware has bfloat16 matmuls, else float32.

    Args:
      name: "auto", or a name that NumPy knows.
      platform: as ``jax.Device.platform``.
    """
    if name == "auto":
        name = "bfloat16" if platform != "cpu" or cpu_has_bfloat16() else "float32"
    return jnp.dtype(name)


def attention_kernel(name: str, platform: str) -> str:
    """The attention kernel of ``Execution``: ``auto`` is the platform's fused one, or "xla".

    Args:
      name: "auto", "xla", "splash" or "cudnn".
      platform: as ``jax.Device.platform``.
    """
    fused = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}
    return fused.get(platform, "xla") if name == "auto" else name


def cpu_has_bfloat16() -> bool:
    """Whether Linux reports that the CPU has bfloat16 dot products; without, XLA emulates them."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
