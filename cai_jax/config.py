"""The config tree: its fields and bounds, validation, and fingerprints.

``configs/*.py`` give every field a value; here each has a type and what it may be. Nothing below
the stages sees the tree: a function takes the values it needs.
"""

import dataclasses
import hashlib
import json
import math
import types
import typing
from dataclasses import dataclass
from typing import Any

import cai_jax

STAGES = ("pretrain", "sl_data", "sl_train", "feedback", "pm_train", "rl", "evaluate", "report")


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field and the mend."""


def limits(low: float | None = None, high: float | None = None, above: float | None = None) -> Any:
    """A numeric field: ``low`` <= value <= ``high``, value > ``above``."""
    return dataclasses.field(metadata={"low": low, "high": high, "above": above})


def one_of(*choices: str) -> Any:
    """A text field with a closed set of values."""
    return dataclasses.field(metadata={"choices": choices})


def text(empty: bool = False) -> Any:
    """A text field, empty or not."""
    return dataclasses.field(metadata={"empty": empty})


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The pretrained model that is policy, feedback model and start of the preference model."""

    source: str = text(empty=True)  # see models/io/sources.py; empty: what ``pretrain`` leaves
    system_prompt: str = text(empty=True)  # empty: what the chat template has
    compute_dtype: str = one_of("auto", "bfloat16", "float32")
    # Folder with the config.json that ``source`` has, so that the run can be compiled ahead where
    # the weights are not; empty: it is read from the source.
    architecture: str = text(empty=True)
    attention: str = one_of("auto", "xla")  # auto: the fused kernel of TPUs and NVIDIA GPUs
    remat: str = one_of(  # what training keeps of each block for the backward pass
        "nothing_saveable",
        "dots_with_no_batch_dims_saveable",
        "dots_saveable",
        "everything_saveable",
    )
    cache: str = text(empty=True)  # folder of downloads; empty: the XDG cache


@dataclass(frozen=True, kw_only=True)
class PretrainConfig:
    """A small assistant from scratch, on a corpus that a function writes."""

    corpus: str = text()  # MODULE:FUNCTION, as cai_jax/microworld/corpus.py has one
    options: dict[str, float]  # of the corpus
    num_layers: int = limits(1)
    d_model: int = limits(2)
    num_heads: int = limits(1)
    d_ff: int = limits(1)
    max_length: int = limits(8)  # tokens that the model can read
    epochs: int = limits(1)
    batch_size: int = limits(1)  # packed rows an update
    micro_batches: int = limits(1)
    sequence_length: int = limits(8)
    learning_rate: float = limits(above=0)  # falls to 0 along a cosine
    warmup_steps: int = limits(0)
    max_grad_norm: float = limits(above=0)


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Devices along each mesh axis; -1 on one of them takes what is left."""

    data: int = limits(-1)
    fsdp: int = limits(-1)
    tensor: int = limits(-1)
    decode_tensor: int = limits(0)  # ways of tensor while sampling; 0: the layout of training


@dataclass(frozen=True, kw_only=True)
class ConstitutionConfig:
    """Which constitution, and how much of it."""

    path: str = text()
    critique_principles: int = limits(0)  # the first ones; 0: all
    feedback_principles: int = limits(0)  # the first ones; 0: all


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Files that people write."""

    red_team_prompts: str = text()
    helpful_prompts: str = text()
    helpfulness_pairs: str = text()  # labelled; train the preference model's helpfulness
    harmlessness_pairs: str = text()  # labelled; only ever audit and evaluate
    held_out_percent: int = limits(1, 90)  # of prompts and pairs, by hash; never trained on


@dataclass(frozen=True, kw_only=True)
class GenerationConfig:
    """How text is sampled, outside RL."""

    temperature: float = limits(0)
    top_k: int = limits(0)
    top_p: float = limits(above=0, high=1)
    batch_size: int = limits(1)
    score_batch_size: int = limits(1)
    response_tokens: int = limits(1)  # limit on a response or revision
    critique_tokens: int = limits(1)
    context_tokens: int = limits(8)  # of the longest prompt and what follows it, outside RL


@dataclass(frozen=True, kw_only=True)
class LoRAFields:
    """Low-rank adaptation; rank 0 trains all parameters."""

    rank: int = limits(0)
    alpha: float = limits(above=0)


@dataclass(frozen=True, kw_only=True)
class SLDataConfig:
    """Critique-revision rounds (Bai et al. 2022, section 3.1)."""

    red_team_prompts: int = limits(1)
    helpful_prompts: int = limits(0)
    helpful_samples: int = limits(1)  # of each helpfulness prompt
    rounds: int = limits(1)
    critique: bool  # False: direct revision, without a critique before it
    few_shots: int = limits(0)


@dataclass(frozen=True, kw_only=True)
class SLTrainConfig:
    """Supervised finetuning on revisions and helpful samples."""

    lora: LoRAFields
    trained_layers: int = limits(0)  # the last ones; 0: all
    epochs: int = limits(1)
    batch_size: int = limits(1)  # packed rows an update
    micro_batches: int = limits(1)
    sequence_length: int = limits(8)
    learning_rate: float = limits(above=0)
    warmup_steps: int = limits(0)
    max_grad_norm: float = limits(above=0)


@dataclass(frozen=True, kw_only=True)
class FeedbackConfig:
    """AI feedback on pairs of responses (section 4.1)."""

    method: str = one_of("contrast", "multiple_choice", "chain_of_thought")
    source: str = text(empty=True)  # feedback model; empty: model.source
    prompts: int = limits(1)
    pairs_per_prompt: int = limits(1)
    temperature: float = limits(above=0)  # of the two responses; 0 would make them equal
    principles_per_pair: int = limits(1)
    labels: str = one_of("soft", "hard")  # hard: 1 for the likelier response, 0 for the other
    few_shots: int = limits(0)
    contrast_scale: float = limits(above=0)  # per nat a token
    reasoning_tokens: int = limits(1)
    clamp_low: float = limits(0, 0.5)  # of chain-of-thought labels
    clamp_high: float = limits(0.5, 1)
    audit_pairs: int = limits(2)  # at most; half of them held out


@dataclass(frozen=True, kw_only=True)
class PMTrainConfig:
    """The preference model (section 4.1)."""

    source: str = text(empty=True)  # start; empty: model.source
    lora: LoRAFields
    trained_layers: int = limits(0)  # the last ones; 0: all
    helpfulness_pairs: int = limits(0)
    epochs: int = limits(1)
    batch_size: int = limits(1)  # pairs an update
    micro_batches: int = limits(1)
    sequence_length: int = limits(8)
    learning_rate: float = limits(above=0)
    warmup_steps: int = limits(0)
    max_grad_norm: float = limits(above=0)


@dataclass(frozen=True, kw_only=True)
class RLConfig:
    """PPO (section 4.1; constants as in the RLHF literature)."""

    lora: LoRAFields
    trained_layers: int = limits(0)  # the last ones; 0: all
    iterations: int = limits(1)
    batch_size: int = limits(2)  # responses an iteration
    minibatches: int = limits(1)
    micro_batches: int = limits(1)
    epochs: int = limits(1)
    prompt_tokens: int = limits(8)  # longer prompts are left out
    response_tokens: int = limits(1)
    temperature: float = limits(above=0)
    learning_rate: float = limits(above=0)
    warmup_steps: int = limits(0)
    max_grad_norm: float = limits(above=0)
    adam_eps: float = limits(above=0)
    kl_coef: float = limits(0)  # reward a nat of log-ratio, every token
    kl_target: float = limits(0)  # nats a response; 0: the coefficient stays
    kl_horizon: int = limits(1)  # samples
    gamma: float = limits(0, 1)
    lam: float = limits(0, 1)
    clip_ratio: float = limits(above=0)
    clip_value: float = limits(above=0)
    value_coef: float = limits(0)
    entropy_coef: float = limits(0)
    unusable_score: float = limits()  # of a reply that does not parse, in standard deviations
    missing_stop_penalty: float = limits(0)  # off the score of a response that never ended
    # Whether preference model and reference wait in the hosts' memory while they are not used.
    offload: bool
    helpful_fraction: float = limits(0, 1)  # share of helpfulness prompts
    max_sampler_gap: float = limits(above=0)  # nats; warns above it, mean over tokens
    # Of the first minibatch, before any update: mean |ratio - 1|, and approximate KL, nats a
    # token. Stops above it.
    max_first_ratio_error: float = limits(above=0)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Comparison of base, SL-CAI and RL-CAI on held-out prompts."""

    red_team_prompts: int = limits(1)
    helpful_prompts: int = limits(1)
    labelled_pairs: int = limits(2)  # of each kind, at most
    bootstrap_samples: int = limits(100)
    oracle: str = text(empty=True)  # MODULE:FUNCTION from prompt and reply to measures; empty: none


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """The page."""

    transcripts: int = limits(1)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Everything a run depends on."""

    seed: int = limits(0, 2**31 - 1)
    workdir: str = text()
    stages: tuple[str, ...]
    rerun_changed: bool  # allow another config in a workdir that has one: redo what it changes
    stage_store: str = text(empty=True)  # folder of stages that runs leave each other; empty: none
    model: ModelConfig
    mesh: MeshConfig
    constitution: ConstitutionConfig
    data: DataConfig
    generation: GenerationConfig
    sl_data: SLDataConfig
    sl_train: SLTrainConfig
    feedback: FeedbackConfig
    pm_train: PMTrainConfig
    rl: RLConfig
    evaluate: EvaluateConfig
    report: ReportConfig
    pretrain: PretrainConfig | None = None  # None: model.source names a pretrained model


def parse_config(tree: dict[str, Any]) -> Config:
    """Checks a config tree (``ConfigDict.to_dict()``) and freezes it.

    Raises:
      ConfigError: a field is unknown, missing, of the wrong type or out of bounds, or fields
        contradict each other.
    """
    config = _parse(Config, tree, "config")
    _check_together(config)
    return config


def _parse(kind: type, tree: Any, where: str) -> Any:
    if not isinstance(tree, dict):
        raise ConfigError(f"{where}: a group of fields is wanted, found {tree!r}")
    hints = typing.get_type_hints(kind)
    known = {field.name: field for field in dataclasses.fields(kind)}
    for name in tree:
        if name not in known:
            raise ConfigError(f"{where}.{name}: no such field; known: {', '.join(sorted(known))}")
    values = {}
    for name, field in known.items():
        if name not in tree and field.default is not dataclasses.MISSING:
            values[name] = field.default
            continue
        if name not in tree:
            raise ConfigError(f"{where}.{name}: missing; configs/rlaif.py shows every field")
        place = f"{where}.{name}"
        hint = hints[name]
        if isinstance(hint, types.UnionType):
            hint = hint.__args__[0]
        if dataclasses.is_dataclass(hint):
            values[name] = _parse(hint, tree[name], place)
        elif typing.get_origin(hint) is tuple:
            values[name] = _parse_stages(tree[name], place)
        elif typing.get_origin(hint) is dict:
            values[name] = _parse_options(tree[name], place)
        else:
            values[name] = _check_value(tree[name], hint, field.metadata, place)
    return kind(**values)


def _check_value(value: Any, kind: type, metadata: typing.Mapping[str, Any], where: str) -> Any:
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{where}: must be {kind.__name__}, found {value!r}")
    if kind is float and not math.isfinite(value):
        raise ConfigError(f"{where}: must be a finite number, found {value!r}")
    if metadata.get("low") is not None and value < metadata["low"]:
        raise ConfigError(f"{where}: must be at least {metadata['low']}, found {value}")
    if metadata.get("high") is not None and value > metadata["high"]:
        raise ConfigError(f"{where}: must be at most {metadata['high']}, found {value}")
    if metadata.get("above") is not None and value <= metadata["above"]:
        raise ConfigError(f"{where}: must be above {metadata['above']}, found {value}")
    if "choices" in metadata and value not in metadata["choices"]:
        raise ConfigError(
            f"{where}: must be one of {', '.join(metadata['choices'])}; found {value!r}"
        )
    if metadata.get("empty") is False and not value.strip():
        raise ConfigError(f"{where}: must not be empty")
    return value


def _parse_stages(value: Any, where: str) -> tuple[str, ...]:
    stages = (
        STAGES if value == "all" else tuple(value.split(",") if isinstance(value, str) else value)
    )
    for stage in stages:
        if stage not in STAGES:
            raise ConfigError(f"{where}: no stage {stage!r}; 'all', or some of {', '.join(STAGES)}")
    if not stages:
        raise ConfigError(f"{where}: names no stage; 'all', or some of {', '.join(STAGES)}")
    return tuple(stage for stage in STAGES if stage in stages)


def _parse_options(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: names and numbers are wanted, found {value!r}")
    return {name: _check_value(v, float, {}, f"{where}.{name}") for name, v in value.items()}


def _check_together(c: Config) -> None:
    if bool(c.model.source) == bool(c.pretrain):
        raise ConfigError(
            "config.model.source: name a pretrained model, or have one made by config.pretrain as "
            "configs/microworld.py does; one of them, not both"
        )
    for where, (batch, parts, unit) in batch_parts(c).items():
        if batch % parts:
            raise ConfigError(
                f"config.{where}.batch_size: {batch} is not a multiple of {unit} = {parts}"
            )
    for where, stage in (("sl_train", c.sl_train), ("pm_train", c.pm_train), ("rl", c.rl)):
        if stage.trained_layers and not stage.lora.rank:
            raise ConfigError(
                f"config.{where}.trained_layers: {stage.trained_layers}, but full finetuning "
                "trains every layer; set it to 0, or config."
                f"{where}.lora.rank above 0"
            )
    room = c.generation.context_tokens
    for where, new in (
        ("generation.response_tokens", c.generation.response_tokens),
        ("generation.critique_tokens", c.generation.critique_tokens),
        ("feedback.reasoning_tokens", c.feedback.reasoning_tokens),
    ):
        if new >= room:
            raise ConfigError(
                f"config.{where}: {new} leaves no room for a prompt within "
                f"config.generation.context_tokens = {room}"
            )
    if c.rl.kl_target and c.rl.kl_horizon <= 0.2 * c.rl.batch_size:
        raise ConfigError(
            f"config.rl.kl_horizon: {c.rl.kl_horizon} is not above a fifth of config.rl.batch_size "
            f"= {c.rl.batch_size}: one iteration could turn the coefficient negative"
        )
    if c.pretrain and c.pretrain.d_model % (2 * c.pretrain.num_heads):
        raise ConfigError(
            f"config.pretrain.d_model: {c.pretrain.d_model} is not an even number for each of "
            f"{c.pretrain.num_heads} heads"
        )
    if [c.mesh.data, c.mesh.fsdp, c.mesh.tensor].count(-1) > 1:
        raise ConfigError("config.mesh: only one axis may be -1")
    for axis in ("data", "fsdp", "tensor"):
        if getattr(c.mesh, axis) == 0:
            raise ConfigError(f"config.mesh.{axis}: 0 devices; 1, or -1 for what is left")


def batch_parts(c: Config) -> dict[str, tuple[int, int, str]]:
    """Of each stage that trains: rows of a batch, in how many parts they are computed, and which.

    ``which`` names the fields, in words of an error: rows at once are the first by the second.
    """
    stages = {"sl_train": c.sl_train, "pm_train": c.pm_train}
    if c.pretrain:
        stages["pretrain"] = c.pretrain
    parts = {name: (s.batch_size, s.micro_batches, "micro_batches") for name, s in stages.items()}
    in_rl = c.rl.minibatches * c.rl.micro_batches
    return parts | {"rl": (c.rl.batch_size, in_rl, "minibatches * micro_batches")}


def fingerprint(*parts: Any) -> str:
    """Hash of settings and inputs, 16 hex digits; the package version is part of it."""

    def plain(part: Any) -> Any:
        return dataclasses.asdict(part) if dataclasses.is_dataclass(part) else part

    text = json.dumps([cai_jax.__version__, *map(plain, parts)], sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def differences(one: dict[str, Any], other: dict[str, Any], where: str = "config") -> list[str]:
    """Fields in which two config trees differ, as lines."""
    lines = []
    for name in sorted(set(one) | set(other)):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            lines += differences(a, b, f"{where}.{name}")
        elif a != b:
            lines.append(f"{where}.{name}: {a!r} there, {b!r} here")
    return lines
