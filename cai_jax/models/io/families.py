"""Model families of Hugging Face: their config.json, and the names of their tensors.

A family is a reader of its config and a table of names. The decoder knows neither: DecoderConfig
alone drives it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from cai_jax.models.config import DecoderConfig, LayerAttention, Rope
from cai_jax.models.io.fields import Fields, checked_fields
from cai_jax.reading import FileError


class TensorName(NamedTuple):
    """The tensor of a checkpoint that holds a parameter; kernels are stored transposed."""

    name: str  # with N for the layer
    part: int | None = None  # 0, 1, 2: queries, keys, values of a fused tensor [h, 3, n, ...]


@dataclass(frozen=True)
class Family:
    """How to read checkpoints of one model_type."""

    config: Callable[[Fields], DecoderConfig]
    names: dict[str, TensorName]  # by our parameter path
    language_model: str  # its class in transformers
    classifier: str  # the same


def read_config(fields: Fields, file: Path) -> tuple[Family, DecoderConfig]:
    """The family and the decoder config that a config.json describes.

    Args:
      fields: of the config.json.
      file: the config.json, named in messages.

    Raises:
      ValueError: the decoder does not support the architecture or one of its features.
    """
    family = FAMILIES.get(str(fields.get("model_type")))
    if family is None:
        raise FileError(
            file,
            f"model_type {fields.get('model_type')!r} is not supported; known: "
            f"{', '.join(FAMILIES)}",
        )
    try:
        config = family.config(checked_fields(fields, file))
    except KeyError as error:
        problem = f"field {error} is missing; the folder is incomplete"
        raise FileError(file, problem) from None
    except FileError:
        raise
    except (TypeError, ValueError) as error:
        raise FileError(file, str(error)) from None
    if problem := _contradiction(fields, config):
        raise FileError(file, f"{problem}; download the file again, or correct it")
    return family, config


def _contradiction(fields: Fields, c: DecoderConfig) -> str:
    """What of a config cannot be together; empty: nothing."""
    if not fields.get("head_dim") and c.d_model % c.num_heads:
        return f"hidden_size {c.d_model} is not a multiple of num_attention_heads {c.num_heads}"
    if c.num_heads % c.num_kv_heads:
        return (
            f"num_attention_heads {c.num_heads} is not a multiple of num_key_value_heads "
            f"{c.num_kv_heads}"
        )
    if not c.head_dim or c.head_dim % 2:
        return f"heads have {c.head_dim} dimensions, which are not pairs for rope to rotate"
    if c.rotary_dim % 2 or c.rotary_dim > c.head_dim:
        return f"rope rotates {c.rotary_dim} of {c.head_dim} dimensions, which are not whole pairs"
    if len(c.attention) not in (1, c.num_layers):
        return f"layers are {c.num_layers}, but attention is described for {len(c.attention)}"
    ropes = [layer.rope for layer in c.attention if layer.rope]
    if any(rope.original and rope.low_factor >= rope.high_factor for rope in ropes):
        return "low_freq_factor is not below high_freq_factor"
    return ""


def _common(fields: Fields) -> dict[str, Any]:
    """The fields that all families name alike."""
    heads = fields["num_attention_heads"]
    return {
        "vocab_size": fields["vocab_size"],
        "num_layers": fields["num_hidden_layers"],
        "d_model": fields["hidden_size"],
        "num_heads": heads,
        "num_kv_heads": fields.get("num_key_value_heads") or heads,
        "head_dim": fields.get("head_dim") or fields["hidden_size"] // heads,
        "d_ff": fields["intermediate_size"],
        "activation": _activation(fields.get("hidden_activation") or fields["hidden_act"]),
        "max_length": fields["max_position_embeddings"],
    }


def _llama_like(fields: Fields, tied: bool = False, **changes: Any) -> DecoderConfig:
    """Llama's fields; ``tied`` is the default of tie_word_embeddings."""
    attention_bias = bool(fields.get("attention_bias"))
    values = _common(fields) | {
        "norm_eps": fields["rms_norm_eps"],
        "qkv_bias": attention_bias,
        "output_bias": attention_bias,
        "mlp_bias": bool(fields.get("mlp_bias")),
        "tie_embeddings": fields.get("tie_word_embeddings", tied),
    }
    if "attention" not in changes:
        values["attention"] = _attention(fields, _rope(_rope_fields(fields)))
    return DecoderConfig(**(values | changes))


def _llama(fields: Fields) -> DecoderConfig:
    return _llama_like({**fields, "layer_types": None})


def _mistral(fields: Fields) -> DecoderConfig:
    types = ["sliding_attention"] * fields["num_hidden_layers"]
    return _llama_like({"sliding_window": 4096, **fields, "layer_types": types})


def _smollm3(fields: Fields) -> DecoderConfig:
    """Every fourth layer has no rope; a window, if there is one, is on those layers."""
    fields = {"rope_theta": 2e6, **_without_nulls(fields)}
    interval = fields.get("no_rope_layer_interval", 4)
    default = [(i + 1) % interval for i in range(fields["num_hidden_layers"])]
    has_rope = fields.get("no_rope_layers", default)  # 1 where a layer has it, despite the name
    sliding = bool(fields.get("use_sliding_window"))
    types = ["sliding_attention" if sliding and not r else "full_attention" for r in has_rope]
    layers = _attention({"layer_types": types, **fields}, _rope(_rope_fields(fields)))
    attention = [
        LayerAttention(layers[i % len(layers)].window, layers[i % len(layers)].rope if r else None)
        for i, r in enumerate(has_rope)
    ]
    return _llama_like(fields, tied=True, attention=tuple(attention))


def _qwen2(fields: Fields) -> DecoderConfig:
    fields = _full_attention_unless_asked(fields)
    return _llama_like(fields, qkv_bias=True, output_bias=False, mlp_bias=False)


def _qwen3(fields: Fields) -> DecoderConfig:
    return _llama_like(_full_attention_unless_asked(fields), qk_norm=True, mlp_bias=False)


def _gemma2(fields: Fields) -> DecoderConfig:
    rope = _rope(_rope_fields(fields))
    fields = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, **fields}
    return _gemma(fields, period=2, full=rope, sliding=rope, qk_norm=False)


def _gemma3(fields: Fields) -> DecoderConfig:
    """Layers with a window have their own rope base; rope scaling applies to the others."""
    stated = fields.get("rope_parameters") or {
        "full_attention": {
            "rope_theta": fields.get("rope_theta", 1e6),
            **(fields.get("rope_scaling") or {}),
        },
        "sliding_attention": {"rope_theta": fields.get("rope_local_base_freq", 1e4)},
    }
    full, sliding = (_rope(stated[kind]) for kind in ("full_attention", "sliding_attention"))
    period = fields.get("sliding_window_pattern", 6)
    return _gemma(fields, period=period, full=full, sliding=sliding, qk_norm=True)


def _gemma(
    fields: Fields, *, period: int, full: Rope, sliding: Rope, qk_norm: bool
) -> DecoderConfig:
    """Scaled embeddings, norms before and after; every ``period``-th layer has no window."""
    if fields.get("use_bidirectional_attention"):
        raise ValueError("use_bidirectional_attention is not supported: the decoder is causal")
    types = [
        "sliding_attention" if (i + 1) % period else "full_attention"
        for i in range(fields["num_hidden_layers"])
    ]
    fields = {"layer_types": types, **_without_nulls({"sliding_window": 4096, **fields})}
    return _llama_like(
        fields,
        tied=True,
        attention=_attention(fields, full, sliding),
        norm_offset=1.0,
        post_norms=True,
        qk_norm=qk_norm,
        embedding_scale=fields["hidden_size"] ** 0.5,
        query_scale=fields["query_pre_attn_scalar"] ** -0.5,
        attention_softcap=fields.get("attn_logit_softcapping", 0.0),
        logits_softcap=fields.get("final_logit_softcapping", 0.0),
    )


def _gpt_neox(fields: Fields) -> DecoderConfig:
    common = _common(fields)
    rope_fields = _rope_fields({"rope_theta": fields.get("rotary_emb_base"), **fields})
    part = rope_fields.get("partial_rotary_factor", fields.get("rotary_pct", 0.25))
    bias = fields.get("attention_bias", True)
    return DecoderConfig(
        **common,
        attention=_attention({**fields, "layer_types": None}, _rope(rope_fields)),
        rotary_dim=int(common["head_dim"] * part),
        norm="layer",
        norm_eps=fields["layer_norm_eps"],
        parallel_residual=fields.get("use_parallel_residual", True),
        qkv_bias=bias,
        output_bias=bias,
        mlp_bias=True,
        gated_mlp=False,
        tie_embeddings=fields.get("tie_word_embeddings", False),
    )


def _attention(
    fields: Fields, full: Rope, sliding: Rope | None = None
) -> tuple[LayerAttention, ...]:
    """One entry per layer, or one for all, from layer_types and sliding_window."""
    window = fields.get("sliding_window") or 0
    known = {
        "full_attention": LayerAttention(0, full),
        "sliding_attention": LayerAttention(window, sliding or full),
    }
    types = fields.get("layer_types") or ["full_attention"]
    for kind in types:
        if kind not in known:
            raise ValueError(f"layer_types: {kind!r} is not supported; known: {', '.join(known)}")
    if len(types) not in (1, fields["num_hidden_layers"]):
        raise ValueError(
            f"layer_types: {len(types)} entries for {fields['num_hidden_layers']} layers; "
            "correct one of them"
        )
    layers = [known[kind] for kind in types]
    return (layers[0],) if len(set(layers)) == 1 else tuple(layers)


def _full_attention_unless_asked(fields: Fields) -> Fields:
    """Qwen sets a window, but only ``use_sliding_window`` enables it, from some layer up."""
    fields = _without_nulls({"sliding_window": 4096, **fields})
    if not fields.get("use_sliding_window"):
        return {**fields, "layer_types": None}
    first = fields.get("max_window_layers", 28)
    types = [
        "sliding_attention" if i >= first else "full_attention"
        for i in range(fields["num_hidden_layers"])
    ]
    return {"layer_types": types, **fields}


def _without_nulls(fields: Fields) -> Fields:
    return {name: value for name, value in fields.items() if value is not None}


def _rope_fields(fields: Fields) -> Fields:
    """transformers 5 has all in rope_parameters; earlier versions keep the base apart."""
    stated = fields.get("rope_parameters") or fields.get("rope_scaling") or {}
    return {"rope_theta": fields.get("rope_theta") or 10_000.0, **stated}


def _rope(stated: Fields) -> Rope:
    kind = stated.get("rope_type", stated.get("type", "default"))
    theta = float(stated["rope_theta"])
    if kind == "default":
        return Rope(theta)
    if kind == "linear":
        return Rope(theta, float(stated["factor"]))
    if kind == "llama3":
        return Rope(
            theta,
            float(stated["factor"]),
            float(stated["low_freq_factor"]),
            float(stated["high_freq_factor"]),
            int(stated["original_max_position_embeddings"]),
        )
    raise ValueError(f"rope_type {kind!r} is not supported; known: default, linear, llama3")


_ACTIVATIONS = {
    "silu": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}


def _activation(name: str) -> str:
    if name not in _ACTIVATIONS:
        raise ValueError(f"hidden_act {name!r} is not supported; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _named(top: dict[str, str], block: dict[str, str]) -> dict[str, TensorName]:
    """Names of weights and biases: a kernel or scale is ``weight``, a bias is ``bias``."""
    names = {path: TensorName(f"{name}.weight") for path, name in top.items() if "norm" not in path}
    modules = {path: name for path, name in top.items() if "norm" in path} | block
    for path, name in modules.items():
        weight = f"{path}.scale" if "norm" in path else f"{path}.kernel"
        names[weight] = TensorName(f"{name}.weight")
        names[f"{path}.bias"] = TensorName(f"{name}.bias")
    return names


_LLAMA = _named(
    {"embedding": "model.embed_tokens", "output": "lm_head", "norm": "model.norm"},
    {
        "blocks.attention_norm": "model.layers.N.input_layernorm",
        "blocks.q": "model.layers.N.self_attn.q_proj",
        "blocks.k": "model.layers.N.self_attn.k_proj",
        "blocks.v": "model.layers.N.self_attn.v_proj",
        "blocks.o": "model.layers.N.self_attn.o_proj",
        "blocks.q_norm": "model.layers.N.self_attn.q_norm",
        "blocks.k_norm": "model.layers.N.self_attn.k_norm",
        "blocks.mlp_norm": "model.layers.N.post_attention_layernorm",
        "blocks.gate": "model.layers.N.mlp.gate_proj",
        "blocks.up": "model.layers.N.mlp.up_proj",
        "blocks.down": "model.layers.N.mlp.down_proj",
    },
)
_GEMMA = _LLAMA | _named(
    {},
    {
        "blocks.attention_post_norm": "model.layers.N.post_attention_layernorm",
        "blocks.mlp_norm": "model.layers.N.pre_feedforward_layernorm",
        "blocks.mlp_post_norm": "model.layers.N.post_feedforward_layernorm",
    },
)
_NEOX_QKV = "gpt_neox.layers.N.attention.query_key_value"
_GPT_NEOX = _named(
    {
        "embedding": "gpt_neox.embed_in",
        "output": "embed_out",
        "norm": "gpt_neox.final_layer_norm",
    },
    {
        "blocks.attention_norm": "gpt_neox.layers.N.input_layernorm",
        "blocks.o": "gpt_neox.layers.N.attention.dense",
        "blocks.mlp_norm": "gpt_neox.layers.N.post_attention_layernorm",
        "blocks.up": "gpt_neox.layers.N.mlp.dense_h_to_4h",
        "blocks.down": "gpt_neox.layers.N.mlp.dense_4h_to_h",
    },
) | {
    f"blocks.{part}.{ours}": TensorName(f"{_NEOX_QKV}.{theirs}", index)
    for index, part in enumerate("qkv")
    for ours, theirs in (("kernel", "weight"), ("bias", "bias"))
}


def _family(
    config: Callable[[Fields], DecoderConfig],
    names: dict[str, TensorName],
    prefix: str,
    classifier: str = "",
) -> Family:
    classifier = f"{classifier or prefix}ForSequenceClassification"
    return Family(config, names, f"{prefix}ForCausalLM", classifier)


FAMILIES = {
    "llama": _family(_llama, _LLAMA, "Llama"),
    "smollm3": _family(_smollm3, _LLAMA, "SmolLM3"),
    "mistral": _family(_mistral, _LLAMA, "Mistral"),
    "qwen2": _family(_qwen2, _LLAMA, "Qwen2"),
    "qwen3": _family(_qwen3, _LLAMA, "Qwen3"),
    "gemma2": _family(_gemma2, _GEMMA, "Gemma2"),
    "gemma3_text": _family(_gemma3, _GEMMA, "Gemma3", "Gemma3Text"),
    "gpt_neox": _family(_gpt_neox, _GPT_NEOX, "GPTNeoX"),
}
