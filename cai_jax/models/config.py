"""What a decoder is built from."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Rope:
    """Rotary position embedding (Su et al. 2021), with the scalings that long contexts use."""

    theta: float = 10_000.0  # base of the frequencies
    factor: float = 1.0  # frequencies are divided by it: all of them, or the low ones (Llama 3)
    # Llama 3: wavelengths below original / high_factor stay, above original / low_factor are
    # divided, and in between it is interpolated; original 0 is plain linear scaling.
    low_factor: float = 1.0
    high_factor: float = 4.0
    original: int = 0  # positions before scaling

    def frequencies(self, size: int) -> np.ndarray:
        """Float32 [size / 2]: radians a position for each rotated pair."""
        plain = self.theta ** (-np.arange(0, size, 2, dtype=np.float64) / size)
        scaled = plain / self.factor
        if self.original:
            turns = self.original * plain / (2 * np.pi)  # within the original positions
            smooth = (turns - self.low_factor) / (self.high_factor - self.low_factor)
            smooth = np.clip(smooth, 0.0, 1.0)
            scaled = (1 - smooth) * scaled + smooth * plain
        return scaled.astype(np.float32)


@dataclass(frozen=True)
class LayerAttention:
    """What layers of one decoder may differ in."""

    window: int = 0  # a token sees this many, itself included; 0: all earlier ones
    rope: Rope | None = Rope()  # None: no positions at all


@dataclass(frozen=True)
class Execution:
    """How a decoder is run: another choice changes speed and memory, not results."""

    kernel: str = "xla"  # of attention over whole rows; or "splash", "cudnn"
    remat: str = "nothing_saveable"  # of jax.checkpoint_policies: what the backward pass finds


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
    attention: tuple[LayerAttention, ...] = (LayerAttention(),)  # repeated over the layers
    rotary_dim: int = 0  # of each head, from its start; 0: the whole head
    norm: str = "rms"  # or "layer": mean subtracted, with a bias
    norm_eps: float = 1e-5
    norm_offset: float = 0.0  # added to a norm's stored scale (Gemma: 1)
    post_norms: bool = False  # the output of attention and of the MLP is normalised too
    qk_norm: bool = False  # queries and keys are normalised head by head
    parallel_residual: bool = False  # attention and MLP both read the block's input
    qkv_bias: bool = False
    output_bias: bool = False  # of the projection after attention
    mlp_bias: bool = False
    gated_mlp: bool = True
    activation: str = "silu"  # or "gelu", "gelu_tanh"
    embedding_scale: float = 1.0
    query_scale: float = 0.0  # factor on attention logits; 0: head_dim ** -0.5
    attention_softcap: float = 0.0  # logits are squashed to +- this; 0: they are not
    logits_softcap: float = 0.0
    tie_embeddings: bool = True  # the output projection is the embedding table
    max_length: int = 2048  # positions the model was trained for
    execution: Execution = Execution()

    def layer(self, index: int) -> LayerAttention:
        """How one layer attends."""
        return self.attention[index % len(self.attention)]

    @property
    def rotary_frequencies(self) -> np.ndarray:
        """Float32 [layers, rotary_dim / 2]; 0, which turns nothing, for layers without rope."""
        size = self.rotary_dim or self.head_dim
        ropes = [self.layer(i).rope for i in range(self.num_layers)]
        none = np.zeros(size // 2, np.float32)
        return np.stack([rope.frequencies(size) if rope else none for rope in ropes])

    @property
    def one_window(self) -> bool:
        """Whether all layers see equally far."""
        return len({layer.window for layer in self.attention}) == 1

    @property
    def windows(self) -> np.ndarray | None:
        """Int32 [layers]: tokens that a layer sees; None where every layer sees all."""
        windows = [self.layer(i).window for i in range(self.num_layers)]
        unlimited = np.iinfo(np.int32).max
        return np.array([w or unlimited for w in windows], np.int32) if any(windows) else None


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (Hu et al. 2021): W + (alpha / rank) A B on every projection."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """Factor on the product A B."""
        return self.alpha / self.rank
