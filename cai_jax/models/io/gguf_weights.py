"""Reader of .gguf files: llama.cpp's layout of the families, told as Hugging Face tells them.

llama.cpp names tensors and settings in its own way and stores some numbers changed; both are
undone here, so that nothing downstream knows where a model came from.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from cai_jax.models.config import Rope
from cai_jax.models.io.families import FAMILIES, Fields

# general.architecture, and the model_type that it is. Mistral's files call themselves llama.
_MODEL_TYPES = {
    "llama": "llama",
    "smollm3": "smollm3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gptneox": "gpt_neox",
}
_PAIRED_ROPE = ("llama", "smollm3")  # rotary pairs are (0,1), (2,3), not (0,n/2), (1,n/2+1)
_GEMMAS = ("gemma2", "gemma3")  # norms hold 1 + weight, the value that is multiplied with
# Layers of the sizes that scale queries by hidden_size / heads, which no field states.
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}


class GGUFWeights:
    """A .gguf file, any quantisation that gguf dequantises."""

    dtype = "float32"  # of what ``read`` gives

    def __init__(self, file: Path):
        self.path = file
        try:
            reader = gguf.GGUFReader(file)
        except (ValueError, OSError, IndexError, KeyError) as error:
            raise ValueError(
                f"{file}: not a readable GGUF file ({error}); download it again"
            ) from error
        self.metadata = {key: field.contents for key, field in reader.fields.items()}
        if self.field("general.type", "model") != "model" or self.field("split.count", 1) > 1:
            raise ValueError(
                f"{file}: an adapter, or one part of a split model; give a whole model, merged by "
                "llama-gguf-split --merge"
            )
        self.architecture = self.field("general.architecture")
        if self.architecture not in _MODEL_TYPES:
            raise ValueError(
                f"{file}: architecture {self.architecture!r} is not supported in GGUF files; "
                f"known: {', '.join(_MODEL_TYPES)}"
            )
        self._stored = {tensor.name: tensor for tensor in reader.tensors}

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata field; an error if it is missing and there is no default."""
        if key in self.metadata:
            return self.metadata[key]()
        if default is None:
            raise ValueError(f"{self.path}: metadata field {key} is missing; give another file")
        return default

    def names(self) -> set[str]:
        """Names of all tensors, Hugging Face's; unknown ones keep their own."""
        return set(self._names) - {"rope_freqs.weight"}

    def read(self, name: str) -> np.ndarray:
        """One tensor, dequantised to float32.

        Raises:
          KeyError: there is none of this name.
        """
        tensor = self._stored[self._names[name]]
        try:
            array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        except NotImplementedError as error:
            raise ValueError(
                f"{self.path}: tensor {tensor.name} is stored as {tensor.tensor_type.name}, which "
                "gguf does not dequantise; give the model in another quantisation"
            ) from error
        array = array.reshape(tuple(reversed([int(n) for n in tensor.shape])))
        if self.architecture in _PAIRED_ROPE and ".q_proj." in name:
            return _halves(array, self._heads)
        if self.architecture in _PAIRED_ROPE and ".k_proj." in name:
            return _halves(array, self._kv_heads)
        if self.architecture in _GEMMAS and name.endswith("norm.weight"):
            return array - 1.0
        if ".query_key_value." in name:
            parts = array.reshape(3, self._heads, -1, *array.shape[1:])
            return parts.swapaxes(0, 1).reshape(array.shape)
        return array

    def hugging_face_fields(self) -> Fields:
        """The config.json of the same model.

        Raises:
          ValueError: a field is missing, or states what the decoder does not compute.
        """
        if "token_embd.weight" not in self._stored:
            raise ValueError(
                f"{self.path}: tensor token_embd.weight is missing; give a whole model"
            )
        d_model, heads, size = self._of("embedding_length"), self._heads, self._head_size
        theta = float(self._of("rope.freq_base", 10_000.0))
        fields = {
            "model_type": _MODEL_TYPES[self.architecture],
            "vocab_size": int(self._stored["token_embd.weight"].shape[1]),
            "num_hidden_layers": self._of("block_count"),
            "hidden_size": d_model,
            "num_attention_heads": heads,
            "num_key_value_heads": self._kv_heads,
            "head_dim": size,
            "intermediate_size": self._of("feed_forward_length"),
            "max_position_embeddings": self._of("context_length"),
            "tie_word_embeddings": "output.weight" not in self._stored,
            "rope_theta": theta,
            "rope_parameters": {"rope_theta": theta, **self._rope_scaling(theta)},
            "attention_bias": "blk.0.attn_q.bias" in self._stored,
            "mlp_bias": "blk.0.ffn_up.bias" in self._stored,
            "hidden_act": "silu",
        }
        # Null where nothing is stated: the classes of transformers have defaults of their own.
        for ours, theirs in (("bos", "bos"), ("eos", "eos"), ("pad", "padding")):
            read = self.metadata.get(f"tokenizer.ggml.{theirs}_token_id", lambda: None)
            fields[f"{ours}_token_id"] = read()
        if self.architecture == "gptneox":
            return fields | {
                "hidden_act": "gelu",
                "layer_norm_eps": self._of("attention.layer_norm_epsilon"),
                "attention_bias": "blk.0.attn_qkv.bias" in self._stored,
                "use_parallel_residual": self._of("use_parallel_residual", True),
                "rotary_pct": self._of("rope.dimension_count") / size,
            }
        fields["rms_norm_eps"] = self._of("attention.layer_norm_rms_epsilon")
        if self.architecture in _GEMMAS:
            largest = fields["num_hidden_layers"] == _GEMMA_27B_LAYERS[self.architecture]
            fields |= {
                "hidden_activation": "gelu_pytorch_tanh",
                "query_pre_attn_scalar": d_model // heads if largest else size,
                **self._gemma_windows(fields["num_hidden_layers"]),
            }
        if self.architecture == "gemma2":
            fields |= {
                "attn_logit_softcapping": self._of("attn_logit_softcapping", 50.0),
                "final_logit_softcapping": self._of("final_logit_softcapping", 30.0),
            }
        if self.architecture == "gemma3":
            local = {"rope_type": "default", "rope_theta": self._of("rope.freq_base_swa", 1e4)}
            both = {"full_attention": fields["rope_parameters"], "sliding_attention": local}
            fields |= {"rope_parameters": both, "rope_local_base_freq": local["rope_theta"]}
        return fields

    def _gemma_windows(self, layers: int) -> Fields:
        """Every second (Gemma 2) or sixth layer sees all, unless the file says otherwise."""
        window = self._of("attention.sliding_window", 4096 if self.architecture == "gemma2" else 0)
        pattern = self._of("attention.sliding_window_pattern", 0)
        period = pattern or (2 if self.architecture == "gemma2" else 6)
        slides = pattern if isinstance(pattern, list) else [(i + 1) % period for i in range(layers)]
        kinds = ["sliding_attention" if window and s else "full_attention" for s in slides]
        return {"sliding_window": window or None, "layer_types": kinds}

    def _rope_scaling(self, theta: float) -> Fields:
        kind = self._of("rope.scaling.type", "none")
        if "rope_freqs.weight" in self._stored:
            return self._llama3_scaling(theta)
        if kind == "linear":
            return {"rope_type": "linear", "factor": self._of("rope.scaling.factor")}
        if kind != "none":
            raise ValueError(
                f"{self.path}: rope scaling {kind!r} is not supported; known: none, linear, llama3"
            )
        return {"rope_type": "default"}

    def _llama3_scaling(self, theta: float) -> Fields:
        """llama.cpp stores what the scaling does to each frequency, not how it is parametrised."""
        divisors = self.read("rope_freqs.weight")
        plain = Rope(theta).frequencies(self._head_size)
        rope = Rope(theta, float(divisors.max()), 1.0, 4.0, 8192)  # all Llama 3 models have these
        if divisors.shape != plain.shape or not np.allclose(
            plain / divisors, rope.frequencies(self._head_size), rtol=1e-4
        ):
            raise ValueError(
                f"{self.path}: rope_freqs.weight is not the scaling of Llama 3; give the model as "
                "a Hugging Face folder"
            )
        return {
            "rope_type": "llama3",
            "factor": rope.factor,
            "low_freq_factor": rope.low_factor,
            "high_freq_factor": rope.high_factor,
            "original_max_position_embeddings": rope.original,
        }

    def _of(self, key: str, default: Any = None) -> Any:
        """A metadata field of the architecture."""
        return self.field(f"{self.architecture}.{key}", default)

    @property
    def _heads(self) -> int:
        return self._count("attention.head_count")

    @property
    def _kv_heads(self) -> int:
        return self._count("attention.head_count_kv", self._heads)

    def _count(self, key: str, default: int | None = None) -> int:
        value = self._of(key, default)
        if not isinstance(value, int) or value < 1:
            raise ValueError(
                f"{self.path}: {self.architecture}.{key} is {value}; one number above 0, the same "
                "for all layers, is what cai_jax reads"
            )
        return value

    @property
    def _head_size(self) -> int:
        size = self._of("embedding_length") // self._heads
        if self.architecture != "gptneox":  # all others turn whole heads
            size = self._of("rope.dimension_count", size)
        return self._of("attention.key_length", size)

    @cached_property
    def _names(self) -> dict[str, str]:
        """llama.cpp's name of a tensor by Hugging Face's."""
        layers = self._of("block_count")
        architectures = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        table = gguf.get_tensor_name_map(architectures[self.architecture], layers)
        known = {}
        for name, _ in FAMILIES[_MODEL_TYPES[self.architecture]].names.values():
            for layer in range(layers if ".N." in name else 1):
                theirs = name.replace(".N.", f".{layer}.")
                known[table.get_name(theirs, try_suffixes=(".weight", ".bias"))] = theirs
        return {known.get(stored, stored): stored for stored in self._stored}


def _halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from rotary pairs (0,1), (2,3) to halves (0,n/2), (1,n/2+1)."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
