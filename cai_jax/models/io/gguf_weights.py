"""Reader of .gguf files: converts llama.cpp's names and layouts to Hugging Face's.

llama.cpp has its own names of tensors and settings, and permutes or offsets some tensors. This
module undoes both, so that nothing downstream depends on the file format.
"""

import math
from functools import cached_property
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from cai_jax.models.config import Rope
from cai_jax.models.io.families import FAMILIES
from cai_jax.models.io.fields import Fields
from cai_jax.reading import FileError, check_regular, parsing

# model_type by general.architecture. Mistral's files have the architecture llama.
_MODEL_TYPES = {
    "llama": "llama",
    "smollm3": "smollm3",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma2": "gemma2",
    "gemma3": "gemma3_text",
    "gptneox": "gpt_neox",
}
_PAIRED_ROPE = ("llama", "smollm3")  # pair (0,1), (2,3), not (0,n/2), (1,n/2+1)
_GEMMAS = ("gemma2", "gemma3")  # store 1 + weight of a norm
# Number of layers of the 27B models: they scale queries by hidden_size / heads, which no field
# states.
_GEMMA_27B_LAYERS = {"gemma2": 46, "gemma3": 62}


MOST_LAYERS = 2**10
MOST_VALUES = 2**22  # of all metadata; vocabularies of 256,000 tokens with merges have 2 million


class _Reader(gguf.GGUFReader):
    """gguf's reader, held to the file: it takes what lies beyond the end for empty, for ever."""

    values = 0

    def _get(self, offset: int, dtype: Any, count: int = 1, *others: Any, **options: Any) -> Any:
        self.values += 1
        if offset + np.dtype(dtype).itemsize * int(count) > len(self.data):
            raise ValueError("it ends before what it announces")
        if self.values > MOST_VALUES:
            raise ValueError(f"its metadata have more than {MOST_VALUES} values")
        return super()._get(offset, dtype, count, *others, **options)


class GGUFWeights:
    """A .gguf file, in any quantisation that gguf dequantises.

    Raises:
      ValueError: the file is not readable, not a whole model, or of an unknown architecture.
    """

    dtype = "float32"  # of the arrays that ``read`` returns

    def __init__(self, file: Path):
        self.path = file
        check_regular(file)
        with parsing(file, "not a readable GGUF file", "download it again"):
            reader = _Reader(file)
        self.metadata = {key: field.contents for key, field in reader.fields.items()}
        whole = self.field("split.count", 1) in (0, 1)
        if self.field("general.type", "model") != "model" or not whole:
            raise ValueError(
                f"{file}: an adapter, or one part of a split model; give a whole model, merged by "
                "llama-gguf-split --merge"
            )
        self.architecture = self.field("general.architecture")
        if not isinstance(self.architecture, str) or self.architecture not in _MODEL_TYPES:
            raise ValueError(
                f"{file}: architecture {self.architecture!r} is not supported in GGUF files; "
                f"known: {', '.join(_MODEL_TYPES)}"
            )
        self._stored = {tensor.name: tensor for tensor in reader.tensors}

    def field(self, key: str, default: Any = None) -> Any:
        """A metadata field.

        Raises:
          ValueError: the field is missing and there is no default.
        """
        if key in self.metadata:
            with parsing(self.path, f"metadata field {key} cannot be read", "give another file"):
                found = self.metadata[key]()
            if isinstance(found, float) and not math.isfinite(found):
                raise FileError(self.path, f"metadata field {key} is {found}; give another file")
            return found
        if default is None:
            raise FileError(self.path, f"metadata field {key} is missing; give another file")
        return default

    def names(self) -> set[str]:
        """Hugging Face's names of all tensors; unknown tensors keep llama.cpp's."""
        return set(self._names) - {"rope_freqs.weight"}

    def read(self, name: str) -> np.ndarray:
        """One tensor, dequantised to float32; projections are [out, in].

        Raises:
          KeyError: no tensor has this name.
          ValueError: gguf does not dequantise it.
        """
        tensor = self._stored[self._names[name]]
        try:
            with np.errstate(over="ignore", invalid="ignore"):  # told where they are not finite
                array = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        except NotImplementedError as error:
            raise FileError(
                self.path,
                f"tensor {tensor.name} is stored as {tensor.tensor_type.name}, which gguf does "
                "not dequantise; give the model in another quantisation",
            ) from error
        with parsing(self.path, f"tensor {tensor.name} cannot be read", "download the file again"):
            array = array.reshape(tuple(reversed([int(n) for n in tensor.shape])))
            return self._as_stored_by_others(name, array)

    def _as_stored_by_others(self, name: str, array: np.ndarray) -> np.ndarray:
        """A tensor as Hugging Face's checkpoints have it."""
        if self.architecture in _PAIRED_ROPE and ".q_proj." in name:
            return _paired_halves(array, self._heads)
        if self.architecture in _PAIRED_ROPE and ".k_proj." in name:
            return _paired_halves(array, self._kv_heads)
        if self.architecture in _GEMMAS and name.endswith("norm.weight"):
            return array - 1.0
        if ".query_key_value." in name:  # from [3, h, n, ...] to [h, 3, n, ...]
            parts = array.reshape(3, self._heads, -1, *array.shape[1:])
            return parts.swapaxes(0, 1).reshape(array.shape)
        return array

    def hugging_face_fields(self) -> Fields:
        """The fields of the model's config.json.

        Raises:
          ValueError: a field is missing, or asks for what the decoder does not support.
        """
        if "token_embd.weight" not in self._stored:
            raise ValueError(
                f"{self.path}: tensor token_embd.weight is missing; give a whole model"
            )
        d_model, heads, size = self._count("embedding_length"), self._heads, self._head_size
        theta = self._number("rope.freq_base", 10_000.0)
        fields = {
            "model_type": _MODEL_TYPES[self.architecture],
            "vocab_size": int(self._stored["token_embd.weight"].shape[1]),
            "num_hidden_layers": self._layers,
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
        # None where the file has none, since the classes of transformers have defaults.
        bos, pad, *ends = (
            self.metadata.get(f"tokenizer.ggml.{key}_token_id", lambda: None)()
            for key in ("bos", "padding", "eos", "eot", "eom")  # ends of text, turn and message
        )
        stated = [end for end in dict.fromkeys(ends) if end is not None]
        fields |= {"bos_token_id": bos, "pad_token_id": pad}
        fields["eos_token_id"] = stated if len(stated) > 1 else stated[0] if stated else None
        if self.architecture == "gptneox":
            return fields | {
                "hidden_act": "gelu",
                "layer_norm_eps": self._of("attention.layer_norm_epsilon"),
                "attention_bias": "blk.0.attn_qkv.bias" in self._stored,
                "use_parallel_residual": self._of("use_parallel_residual", True),
                "rotary_pct": self._count("rope.dimension_count") / size,
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
            theta = self._number("rope.freq_base_swa", 1e4)
            local = {"rope_type": "default", "rope_theta": theta}
            both = {"full_attention": fields["rope_parameters"], "sliding_attention": local}
            fields |= {"rope_parameters": both, "rope_local_base_freq": local["rope_theta"]}
        return fields

    def _gemma_windows(self, layers: int) -> Fields:
        """Every second (Gemma 2) or sixth layer has no window, unless the file says otherwise."""
        window = self._of("attention.sliding_window", 4096 if self.architecture == "gemma2" else 0)
        pattern = self._of("attention.sliding_window_pattern", 0)
        if (isinstance(pattern, list) and len(pattern) != layers) or type(pattern) is str:
            problem = f"attention.sliding_window_pattern is {pattern!r}; give another file"
            raise FileError(self.path, f"{self.architecture}.{problem}")
        period = pattern or (2 if self.architecture == "gemma2" else 6)
        sliding = (
            pattern if isinstance(pattern, list) else [(i + 1) % period for i in range(layers)]
        )
        types = ["sliding_attention" if window and s else "full_attention" for s in sliding]
        return {"sliding_window": window or None, "layer_types": types}

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
        """llama.cpp stores the divisor of each frequency; Hugging Face stores the parameters."""
        divisors = self.read("rope_freqs.weight")
        if not (divisors >= 1).all() or not divisors.size:
            raise FileError(self.path, "rope_freqs.weight must divide by 1 or more")
        unscaled = Rope(theta).frequencies(self._head_size)
        rope = Rope(theta, float(divisors.max()), 1.0, 4.0, 8192)  # as in all Llama 3 models
        if divisors.shape != unscaled.shape or not np.allclose(
            unscaled / divisors, rope.frequencies(self._head_size), rtol=1e-4
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

    @property
    def _layers(self) -> int:
        return self._count("block_count", most=MOST_LAYERS)

    def _count(self, key: str, default: int | None = None, most: int = 2**20) -> int:
        value = self._of(key, default)
        if type(value) is not int or not 1 <= value <= most:
            raise FileError(
                self.path,
                f"{self.architecture}.{key} is {value!r}; cai_jax reads one number above 0, the "
                f"same for all layers, up to {most}",
            )
        return value

    def _number(self, key: str, default: float) -> float:
        value = self._of(key, default)
        if type(value) not in (int, float):
            raise FileError(self.path, f"{self.architecture}.{key} is {value!r}; it is a number")
        return float(value)

    @property
    def _head_size(self) -> int:
        size = self._count("embedding_length") // self._heads
        if self.architecture != "gptneox":  # the others rotate whole heads
            size = self._count("rope.dimension_count", size)
        return self._count("attention.key_length", size)

    @cached_property
    def _names(self) -> dict[str, str]:
        """llama.cpp's name of each tensor, by Hugging Face's."""
        layers = self._layers
        architectures = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}
        table = gguf.get_tensor_name_map(architectures[self.architecture], layers)
        known: dict[str, str] = {}  # Hugging Face's name by llama.cpp's
        for name, _ in FAMILIES[_MODEL_TYPES[self.architecture]].names.values():
            for layer in range(layers if ".N." in name else 1):
                tensor = name.replace(".N.", f".{layer}.")
                stored = table.get_name(tensor, try_suffixes=(".weight", ".bias"))
                if stored is not None:
                    known[stored] = tensor
        return {known.get(stored, stored): stored for stored in self._stored}


def _paired_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Permutes the rows of each head from pairs (0,1), (2,3) to pairs (0,n/2), (1,n/2+1)."""
    pairs = rows.reshape(heads, -1, 2, *rows.shape[1:])
    return pairs.swapaxes(1, 2).reshape(rows.shape)
