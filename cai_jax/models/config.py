"""Sizes and constants of a decoder, and of its low-rank updates."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import Field


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021), with the scalings for long contexts."""

    theta: float = 10_000.0  # base of the frequencies
    factor: float = 1.0  # divides the frequencies: all of them, or the low ones (Llama 3)
    # Llama 3: wavelengths below original / high_factor stay, those above original / low_factor are
    # divided, those in between are interpolated; original 0 is linear scaling.
    low_factor: float = 1.0
    high_factor: float = 4.0
    original: int = 0  # context length before scaling, in tokens

    def frequencies(self, size: int) -> np.ndarray:
        """Frequencies [size / 2], float32, in radians per position, one per rotated pair."""
        unscaled = self.theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
        scaled = unscaled / self.factor
        if self.original:
            rotations = self.original * unscaled / (2 * np.pi)  # over the original context
            smooth = (rotations - self.low_factor) / (self.high_factor - self.low_factor)
            smooth = np.clip(smooth, 0.0, 1.0)
            scaled = (1 - smooth) * scaled + smooth * unscaled
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class LayerAttention:
    """The attention settings that may differ from layer to layer."""

    window: int = 0  # tokens that a token attends to, itself included; 0: all earlier ones
    rope: Rope | None = Rope()  # None: no position embedding


@dataclass(frozen=True)
class Execution:
    """How a decoder runs. It changes speed and memory, not results."""

    kernel: str = "xla"  # attention over whole sequences; or "splash", "cudnn"
    remat: str = "nothing_saveable"  # name in jax.checkpoint_policies: which residuals are saved


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and constants of a decoder; the defaults are Llama's."""

    vocab_size: int
    num_layers: int
    d_model: int
    num_heads: int
    num_kv_heads: int  # fewer than num_heads: grouped-query attention
    head_dim: int
    d_ff: int
    attention: tuple[LayerAttention, ...] = (LayerAttention(),)  # cycled over the layers
    rotary_dim: int = 0  # leading dimensions of a head that are rotated; 0: the whole head
    norm: str = "rms"  # or "layer": subtracts the mean and adds a bias
    norm_eps: float = 1e-5
    norm_offset: float = 0.0  # added to a norm's stored scale (Gemma: 1)
    post_norms: bool = False  # also normalise the outputs of attention and of the MLP
    qk_norm: bool = False  # normalise queries and keys per head
    parallel_residual: bool = False  # attention and MLP both read the block's input
    qkv_bias: bool = False
    output_bias: bool = False  # on the projection after attention
    mlp_bias: bool = False
    gated_mlp: bool = True
    activation: str = "silu"  # or "gelu", "gelu_tanh"
    embedding_scale: float = 1.0
    query_scale: float = 0.0  # factor on attention logits; 0: head_dim ** -0.5
    attention_softcap: float = 0.0  # soft cap on attention logits; 0: none
    logits_softcap: float = 0.0  # soft cap on output logits; 0: none
    tie_embeddings: bool = True  # the output projection is the embedding table
    max_length: int = 2048  # context length of the pretraining, in tokens
    execution: Execution = Execution()

    def layer(self, index: int) -> LayerAttention:
        """Attention settings of layer ``index``."""
        return self.attention[index % len(self.attention)]

    @property
    def rotary_frequencies(self) -> tuple[np.ndarray, np.ndarray]:
        """Float32 [kinds, rotary_dim / 2], radians per position, and int32 [layers], their kinds.

        Layers without rope have 0, the identity rotation.
        """
        size = self.rotary_dim or self.head_dim
        ropes = [self.layer(i).rope for i in range(self.num_layers)]
        identity = np.zeros(size // 2, np.float32)
        by_layer = np.stack([rope.frequencies(size) if rope else identity for rope in ropes])
        kinds, of_layer = np.unique(by_layer, axis=0, return_inverse=True)
        return kinds, of_layer.reshape(-1).astype(np.int32)

    @property
    def one_window(self) -> bool:
        """Whether all layers have the same window."""
        return len({layer.window for layer in self.attention}) == 1

    @property
    def windows(self) -> np.ndarray | None:
        """Window of each layer [layers], int32; None where no layer has one."""
        windows = [self.layer(i).window for i in range(self.num_layers)]
        unlimited = np.iinfo(np.int32).max
        return np.array([w or unlimited for w in windows], np.int32) if any(windows) else None


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (Hu et al. 2021): W + (alpha / rank) A B on every projection kernel W."""

    rank: Annotated[int, Field(ge=1)]
    alpha: float

    @property
    def scale(self) -> float:
        """Factor on A B."""
        return self.alpha / self.rank
