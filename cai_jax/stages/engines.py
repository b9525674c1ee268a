"""Generators and scorers as the config asks for them, and other things that stages share."""

import importlib
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from jax.sharding import Mesh

from cai_jax.config import ConfigError, GenerationConfig
from cai_jax.constitution.schema import Constitution
from cai_jax.feedback.labeler import LabelerTools
from cai_jax.feedback.registry import LABELERS
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.models.blueprint import Model
from cai_jax.models.io.checkpoint import CheckpointInfo, read_info
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.program import Program
from cai_jax.prompts.few_shots import FewShots
from cai_jax.rl.reward import Objective, Reward
from cai_jax.stages.stage import Inputs

SAMPLING_REMEDY = "raise config.mesh.decode_tensor, or lower config.generation.batch_size"
MEMORY_REMEDY = "take more devices, or train low-rank updates (lora.rank)"
SCORING_REMEDY = "lower config.generation.score_batch_size"


def make_generator(g: GenerationConfig, model: Model, mesh: Mesh, stop_ids: Any) -> Generator:
    """Samples from a decoder that is laid out over ``mesh``."""
    return Generator(model, mesh, stop_ids, g.batch_size, g.prompt_bucket_tokens, g.context_tokens)


def make_scorer(
    g: GenerationConfig,
    model: Model,
    mesh: Mesh,
    max_tokens: int | None = None,
    offload: bool = False,
) -> Scorer:
    """Scores with a model that is laid out over ``mesh``; rows have ``context_tokens`` at most."""
    longest = g.context_tokens if max_tokens is None else max_tokens
    return Scorer(model, mesh, g.score_batch_size, g.score_pack_tokens, longest, offload)


def make_reward(inputs: Inputs, stage: str = "pm_train") -> Objective:
    """The groups' preference models as a reward, offloaded as the config says; abstract ahead."""
    rewards = {group: _make_reward(inputs, stage, group) for group in inputs.groups}
    return Objective(rewards, inputs.config.rl.objective)


def _make_reward(inputs: Inputs, stage: str, group: str) -> Reward:
    """Of one group.

    Rows may have any length: what a policy writes can have more tokens when it is read again.
    """
    models, g = inputs.models, inputs.config.generation
    model, folder = models.preference_model(stage, group), models.checkpoint(stage, group)
    info = CheckpointInfo("preference", "", None) if models.ahead else read_info(folder)
    offload = inputs.config.rl.offload and not models.ahead  # what is abstract is nowhere
    scorer = Scorer(model, models.mesh, g.score_batch_size, g.score_pack_tokens, offload=offload)
    return Reward(
        scorer=scorer,
        open_chat=lambda: models.chat,
        mean=info.score_mean,
        std=info.score_std,
        unusable_score=inputs.config.rl.unusable_score,
    )


def make_labeler_tools(
    inputs: Inputs, model: Model, source: ModelSource, constitution: Constitution
) -> LabelerTools:
    """A model as labelers use it, asked as ``config.feedback`` says; it may be abstract."""
    f, g, models = inputs.config.feedback, inputs.config.generation, inputs.models
    mesh = models.decode_mesh
    examples = LABELERS[f.method].few_shots(constitution) or ()
    return LabelerTools(
        scorer=make_scorer(g, model, mesh),
        generator=make_generator(g, model, mesh, models.stop_ids_of(source)),
        open_chat=partial(models.chat_of, source),
        few_shots=FewShots(examples, f.few_shots, inputs.seed),
        sampling=make_sampling(g),
        seed=inputs.seed,
        reasoning_tokens=f.reasoning_tokens,
        chains=f.chains,
        clamp_low=f.clamp_low,
        clamp_high=f.clamp_high,
        contrast_scale=f.contrast_scale,
    )


def make_sampling(g: GenerationConfig) -> Sampling:
    """How text is sampled outside RL and feedback."""
    return Sampling(g.temperature, g.top_k, g.top_p)


def with_remedy(programs: Iterable[Program], remedy: str, prefix: str = "") -> list[Program]:
    """Programs with what to change where they do not fit, and the stage before their names."""
    return [replace(p, name=f"{prefix}{p.name}", remedy=p.remedy or remedy) for p in programs]


def stage_seed(seed: int, *names: str | int) -> int:
    """A seed below 2**31 for libraries that take integers, from the run's seed and names."""
    return int(named_key(seed, *names)[0] >> 1)


def load_function(name: str, field: str) -> Callable[..., Any]:
    """The function that a config field names as MODULE:FUNCTION.

    Raises:
      ConfigError: there is none of this name.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        if callable(found):
            return found
        problem: Any = f"it is a {type(found).__name__}"
    except (ImportError, AttributeError, ValueError) as error:
        problem = error
    raise ConfigError(f"{field}: {name!r} is no function ({problem}); name one as MODULE:FUNCTION")
