"""Readers of weight files, all under Hugging Face names and orientation.

A reader opens a file without loading it, lists its tensors, and reads one at a time, so that a
large model never stands whole in host memory. Nothing here unpickles or runs remote code.
"""

import json
from pathlib import Path
from typing import Any, Protocol

import gguf
import numpy as np
from safetensors import SafetensorError, safe_open

from cai_jax.models.config import DecoderConfig, LayerAttention, Rope


class Weights(Protocol):
    """Tensors of a checkpoint by Hugging Face name."""

    path: Path

    def names(self) -> set[str]:
        """Names of all tensors."""

    def read(self, name: str) -> np.ndarray:
        """One tensor, float32, [out, in] for projections."""


class SafetensorsWeights:
    """A Hugging Face folder: model.safetensors, or shards with an index."""

    def __init__(self, folder: Path):
        self.path = folder
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        if index.exists():
            shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        elif single.exists():
            shards = {single.name}
        else:
            raise ValueError(
                f"{folder}: no model.safetensors and no model.safetensors.index.json; cai_jax "
                "reads safetensors only, so convert pickled weights first"
            )
        self._files, self._home = {}, {}
        for shard in sorted(shards):
            try:
                self._files[shard] = safe_open(folder / shard, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise ValueError(
                    f"{folder / shard}: not a readable safetensors file ({error}); "
                    "download it again"
                ) from error
            self._home.update(dict.fromkeys(self._files[shard].keys(), shard))

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._home)

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        return self._files[self._home[name]].get_tensor(name).astype(np.float32)


# llama.cpp's names of a Llama checkpoint: blk.N.attn_q.weight is layer N's q_proj, and so on.
_GGUF_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_GGUF_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class GGUFWeights:
    """A .gguf file of the llama architecture, any quantisation that gguf dequantises."""

    def __init__(self, file: Path):
        self.path = file
        try:
            reader = gguf.GGUFReader(file)
        except (ValueError, OSError, IndexError, KeyError) as error:
            raise ValueError(
                f"{file}: not a readable GGUF file ({error}); download it again"
            ) from error
        self._fields = {key: field.contents for key, field in reader.fields.items()}
        architecture = self.field("general.architecture")
        if architecture != "llama":
            raise ValueError(
                f"{file}: architecture {architecture!r}; cai_jax reads GGUF files of the llama "
                "architecture"
            )
        scaling = self.field("llama.rope.scaling.type", "none")
        if scaling != "none" or any(t.name.startswith("rope_freqs") for t in reader.tensors):
            raise ValueError(
                f"{file}: rope scaling ({scaling}) is not supported; cai_jax computes Llama "
                "decoders without it"
            )
        self._tensors = {_hugging_face_name(t.name): t for t in reader.tensors}

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata field; an error if it is missing and there is no default."""
        if key in self._fields:
            return self._fields[key]()
        if default is None:
            raise ValueError(f"{self.path}: metadata field {key} is missing; download it again")
        return default

    def config(self) -> DecoderConfig:
        """Sizes from the file's metadata."""
        heads = int(self.field("llama.attention.head_count"))
        d_model = int(self.field("llama.embedding_length"))
        theta = float(self.field("llama.rope.freq_base", 10_000.0))
        return DecoderConfig(
            vocab_size=int(self._tensors["model.embed_tokens.weight"].shape[1]),
            num_layers=int(self.field("llama.block_count")),
            d_model=d_model,
            num_heads=heads,
            num_kv_heads=int(self.field("llama.attention.head_count_kv", heads)),
            head_dim=int(self.field("llama.rope.dimension_count", d_model // heads)),
            d_ff=int(self.field("llama.feed_forward_length")),
            attention=(LayerAttention(rope=Rope(theta)),),
            norm_eps=float(self.field("llama.attention.layer_norm_rms_epsilon")),
            tie_embeddings="lm_head.weight" not in self._tensors,
            max_length=int(self.field("llama.context_length")),
        )

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._tensors)

    def read(self, name: str) -> np.ndarray:
        """One tensor, dequantised to float32."""
        tensor = self._tensors[name]
        array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        array = array.reshape(tuple(reversed([int(n) for n in tensor.shape])))
        if name.endswith("q_proj.weight"):
            return _halves(array, int(self.field("llama.attention.head_count")))
        if name.endswith("k_proj.weight"):
            return _halves(array, int(self.field("llama.attention.head_count_kv")))
        return array


def _hugging_face_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem.startswith("blk."):
        _, layer, part = stem.split(".", 2)
        return f"model.layers.{layer}.{_GGUF_BLOCK.get(part, part)}.weight"
    return f"{_GGUF_TOP.get(stem, stem)}.weight"


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from llama.cpp's rotary pairs (0,1), (2,3) to halves (0,n/2), (1,n/2+1)."""
    pairs = rows.reshape(heads, -1, 2, rows.shape[-1])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
