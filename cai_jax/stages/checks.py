"""What is checked before a run computes anything: files, models, and how they fit the devices."""

import logging
from dataclasses import replace
from pathlib import Path

from cai_jax.config import ConfigError, batch_parts
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.mesh import batch_multiple
from cai_jax.prompts.chat import same_tokens
from cai_jax.stages.run import Run, load_function

log = logging.getLogger("cai_jax")


def check_inputs(run: Run) -> None:
    """Reads every file that people write, so that a bad one stops the run at its start.

    Raises:
      ValueError: a file cannot be used, or holds less than the config asks for.
    """
    c, constitution = run.config, run.constitution
    for field_name, name in (
        ("config.pretrain.corpus", c.pretrain.corpus if c.pretrain else ""),
        ("config.evaluate.oracle", c.evaluate.oracle),
    ):
        if name:
            load_function(name, field_name)
    for field_name, few, examples in (
        ("sl_data.few_shots", c.sl_data.few_shots, constitution.critique_examples),
        ("feedback.few_shots", _choice_shots(run), run.feedback_examples_all),
    ):
        if few > len(examples):
            raise ConfigError(
                f"config.{field_name}: {few}, but {c.constitution.path} has {len(examples)} "
                "such few-shots"
            )
    if c.feedback.principles_per_pair > len(constitution.feedback):
        raise ConfigError(
            f"config.feedback.principles_per_pair: {c.feedback.principles_per_pair}, but only "
            f"{len(constitution.feedback)} feedback principles of {c.constitution.path} are "
            "in use"
        )
    for items, path in (
        (run.red_team_prompts, c.data.red_team_prompts),
        (run.helpful_prompts, c.data.helpful_prompts),
        (run.helpfulness_pairs, c.data.helpfulness_pairs),
        (run.harmlessness_pairs, c.data.harmlessness_pairs),
    ):
        if not run.held_out(items, 1) or not run.training(items, 1):
            raise ConfigError(
                f"{path}: {len(items)} rows leave one side of the split empty at "
                f"config.data.held_out_percent = {c.data.held_out_percent}; add rows"
            )
    _check_counts(run)


def check_models(run: Run) -> None:
    """Resolves every model and the mesh before anything is computed; warns of idle devices.

    Raises:
      ValueError: a source cannot be resolved, the mesh does not fit the devices, the config asks
        for more positions than the model has, or policy and preference model read other tokens.
    """
    c = run.config
    for field_name in ("model", "feedback", "pm_train"):
        name = getattr(c, field_name).source
        if name and run.source(name).kind != "policy":
            raise ConfigError(
                f"config.{field_name}.source: {name} is a preference model; name a language model"
            )
    if c.model.architecture:
        planned = ModelSource(Path(c.model.architecture)).config
        found = replace(run.source("").config, execution=planned.execution)
        if found != planned:
            raise ConfigError(
                f"config.model.architecture: {c.model.architecture}/config.json describes "
                f"another model than {run.model}; empty the field, or give that model's"
            )
    positions = c.pretrain.max_length if c.pretrain else run.source("").config.max_length
    for field_name, length in (
        ("generation.context_tokens", c.generation.context_tokens),
        ("rl.prompt_tokens + response_tokens", c.rl.prompt_tokens + c.rl.response_tokens),
    ):
        if length > positions:
            raise ConfigError(
                f"config.{field_name}: {length}, but {run.model} was made for {positions} "
                "tokens; lower it"
            )
    _ = run.decode_mesh
    _check_tokenizer(run)
    for problem in unsplit_rows(run):
        log.warning(problem)


def unsplit_rows(run: Run) -> list[str]:
    """Stages whose training rows do not split over the devices, each with the mend."""
    ways, found = batch_multiple(run.mesh), []
    for name, (batch, parts, unit) in batch_parts(run.config).items():
        if batch // parts % ways:
            found.append(
                f"config.{name}.batch_size: {batch // parts} rows at once do not split over {ways} "
                f"devices, so that each computes all of them; make it, divided by {unit}, a "
                f"multiple of {ways}"
            )
    return found


def _choice_shots(run: Run) -> int:
    return 0 if run.config.feedback.method == "contrast" else run.config.feedback.few_shots


def _check_tokenizer(run: Run) -> None:
    """PPO hands its own token ids to the preference model, so both must mean the same."""
    if not run.config.pm_train.source:
        return
    other = run.chat_of(run.source(run.config.pm_train.source))
    if not same_tokens(run.chat.tokenizer, other.tokenizer):
        raise ValueError(
            f"config.pm_train.source: the tokenizer of {run.config.pm_train.source} differs from "
            f"that of the policy, {run.model}; give a model with the same tokenizer"
        )


def _check_counts(run: Run) -> None:
    """Refuses a config that asks for more rows than its files have."""
    for stage, name, of in (
        ("sl_data", "red_team_prompts", "red_team_prompts"),
        ("sl_data", "helpful_prompts", "helpful_prompts"),
        ("feedback", "prompts", "red_team_prompts"),
        ("pm_train", "helpfulness_pairs", "helpfulness_pairs"),
        ("evaluate", "red_team_prompts", "red_team_prompts"),
        ("evaluate", "helpful_prompts", "helpful_prompts"),
    ):
        asked, file = getattr(getattr(run.config, stage), name), getattr(run.config.data, of)
        side, split = (
            ("held-out", run.held_out) if stage == "evaluate" else ("training", run.training)
        )
        there = len(split(getattr(run, of), None))
        if asked > there:
            raise ConfigError(
                f"config.{stage}.{name}: {asked}, but {file} has {there} {side} rows; name a "
                f"larger file in config.data.{of}, or set it to at most {there}"
            )
