"""The peer of benchmarks in this process: the same weights in transformers."""

from typing import Any

import jax.numpy as jnp
import torch
import transformers

from cai_jax.models.io.sources import ModelSource


def open_peer(source: ModelSource, dtype: jnp.dtype) -> Any:
    """A causal language model of transformers, ready to read and to sample."""
    kept = getattr(torch, dtype.name)
    return transformers.AutoModelForCausalLM.from_pretrained(source.path, dtype=kept).eval()
