"""What the config.json of a model may say: the fields that we read, each with type and range.

The one table for config.json, generation_config.json and what a .gguf file says instead. Fields
that nobody reads may say anything.
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic's; typing's own from Python 3.12

from cai_jax.reading import FileError, read_object

Fields = dict[str, Any]  # of a config.json: JSON values by field name

# The bounds are ten times and more above the largest models that there are.
Width = Annotated[int, Field(ge=1, le=2**20)]
Count = Annotated[int, Field(ge=1, le=2**10)]  # of layers and heads
Tokens = Annotated[int, Field(ge=1, le=2**30)]
Id = Annotated[int, Field(ge=0, lt=2**31)]
Base = Annotated[float, Field(ge=1, le=1e12)]  # of rope's frequencies
Factor = Annotated[float, Field(gt=0, le=1e6)]
Share = Annotated[float, Field(gt=0, le=1)]
Scale = Annotated[float, Field(gt=0, le=1e9)]
Epsilon = Annotated[float, Field(gt=0, le=0.1)]
_STRICT = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)


@with_config(_STRICT)
class _Rope(TypedDict, total=False):
    rope_type: str
    type: str
    rope_theta: Base
    factor: Factor
    low_freq_factor: Factor
    high_freq_factor: Factor
    original_max_position_embeddings: Tokens
    partial_rotary_factor: Share


@with_config(_STRICT)
class _RopeByKind(_Rope, total=False):
    full_attention: _Rope
    sliding_attention: _Rope


@with_config(_STRICT)
class _Stated(TypedDict, total=False):
    model_type: str
    architectures: list[str] | None
    vocab_size: Annotated[int, Field(ge=1, le=2**24)]
    num_hidden_layers: Count
    hidden_size: Width
    num_attention_heads: Count
    num_key_value_heads: Count | None
    head_dim: Annotated[int, Field(ge=2, le=2**12, multiple_of=2)] | None
    intermediate_size: Width
    max_position_embeddings: Tokens
    hidden_act: str
    hidden_activation: str | None
    rms_norm_eps: Epsilon
    layer_norm_eps: Epsilon
    attention_bias: bool | None
    mlp_bias: bool | None
    tie_word_embeddings: bool
    use_parallel_residual: bool
    use_sliding_window: bool | None
    sliding_window: Tokens | None
    sliding_window_pattern: Count | None
    max_window_layers: Annotated[int, Field(ge=0, le=2**10)] | None
    layer_types: list[str] | None
    no_rope_layers: list[Literal[0, 1]] | None
    no_rope_layer_interval: Count | None
    rope_theta: Base | None
    rope_scaling: _Rope | None
    rope_parameters: _RopeByKind | None
    rope_local_base_freq: Base
    rotary_emb_base: Base | None
    rotary_pct: Share
    query_pre_attn_scalar: Scale
    attn_logit_softcapping: Scale | None
    final_logit_softcapping: Scale | None
    bos_token_id: Id | None
    eos_token_id: Id | list[Id] | None
    pad_token_id: Annotated[int, Field(ge=-1, lt=2**31)] | None  # -1: Llama's none


_TABLE = TypeAdapter(_Stated)


def read_fields(file: Path) -> Fields:
    """The fields of a config.json, checked.

    Raises:
      FileError: the file is not a JSON object, or ``checked_fields`` refuses what it says.
    """
    return checked_fields(read_object(file), file)


def checked_fields(fields: Fields, file: Path) -> Fields:
    """The fields, if those that we read have the types and lie in the ranges of this table.

    Args:
      fields: of a config.json.
      file: named in messages.

    Raises:
      FileError: one has not; the message names it.
    """
    try:
        _TABLE.validate_python(fields)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        allowed = first["msg"].replace("Input should", "must")
        problem = f"field {_name(fields, first['loc'])}: {allowed}, found {first['input']!r}"
        raise FileError(file, f"{problem}; download the file again, or correct it") from None
    if isinstance(how := fields.get("quantization_config"), dict) and how:
        method = how.get("quant_method", "an unnamed method")
        raise FileError(
            file,
            f"field quantization_config: the weights are quantised by {method}, which is not "
            "supported; give the model in bfloat16 or float32, or as a .gguf file",
        )
    return fields


def _name(value: Any, steps: tuple[int | str, ...]) -> str:
    """The name of a field, without pydantic's steps into one of several forms that it may have."""
    names: list[str] = []
    for step in steps:
        if isinstance(value, dict) and step in value:
            names.append(str(step))
            value = value[step]
    return ".".join(names)
