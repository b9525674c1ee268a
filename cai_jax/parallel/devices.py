"""What the devices are good at."""

from pathlib import Path

import jax.numpy as jnp


def compute_dtype(name: str, platform: str) -> jnp.dtype:
    """The type of products: ``auto`` is bfloat16 wherever hardware multiplies it natively."""
    if name == "auto":
        name = "bfloat16" if platform != "cpu" or cpu_has_bfloat16() else "float32"
    return jnp.dtype(name)


def attention_kernel(name: str, platform: str) -> str:
    """Which attention kernel to use: ``auto`` is the platform's fused one, where it has one."""
    fused = {"tpu": "splash", "gpu": "cudnn", "cuda": "cudnn"}
    return fused.get(platform, "xla") if name == "auto" else name


def cpu_has_bfloat16() -> bool:
    """Whether the CPU has bfloat16 dot products, as Linux reports it; without, it emulates."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags
