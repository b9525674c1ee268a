"""What a decoder is built from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes and constants of a Llama-family decoder."""

    vocab_size: int
    num_layers: int
    d_model: int
    num_heads: int
    num_kv_heads: int  # fewer than num_heads: grouped-query attention
    head_dim: int
    d_ff: int
    rope_theta: float = 10_000.0  # base of the rotary frequencies
    rms_eps: float = 1e-5
    tie_embeddings: bool = True  # the output projection is the embedding table
    max_length: int = 2048  # positions the model was trained for


@dataclass(frozen=True)
class LoRAConfig:
    """Low-rank adaptation (Hu et al. 2021): W + (alpha / rank) A B on every projection."""

    rank: int
    alpha: float

    @property
    def scale(self) -> float:
        """Factor on the product A B."""
        return self.alpha / self.rank
