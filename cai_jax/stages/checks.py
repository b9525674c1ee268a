"""What is checked before a run computes anything: files, models, and how they fit the devices."""

import logging
from collections.abc import Sequence
from pathlib import Path

from cai_jax.config import ConfigError, batch_parts
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.mesh import batch_multiple
from cai_jax.prompts.chat import same_tokens
from cai_jax.stages.rl import make_algorithm
from cai_jax.stages.stage import Run, Stage

log = logging.getLogger("cai_jax")


def check_inputs(run: Run, stages: Sequence[Stage]) -> None:
    """Reads every file that people write, so that a bad one stops the run at its start.

    Raises:
      ValueError: a file cannot be used, or holds less than the config asks for.
    """
    every = [s for stage in stages for s in stage.data.values() if s.count(run.config) != 0]
    for file, side in {(s.file, s.side): None for s in every}:
        if not run.data.side(file, side):
            raise ConfigError(
                f"{run.data.path(file)}: none of its {len(run.data.rows(file))} rows is on the "
                f"{side.replace('_', '-')} side of the split, at config.data.held_out_percent = "
                f"{run.data.held_out_percent}; add rows"
            )
    for stage in stages:
        stage.check(run.inputs(stage))
        _check_counts(run, stage)


def _check_counts(run: Run, stage: Stage) -> None:
    """Refuses a stage that declares more rows than its files have."""
    for selection in stage.data.values():
        asked, there = (
            selection.count(run.config),
            len(run.data.side(selection.file, selection.side)),
        )
        if selection.field and asked is not None and asked > there:
            side = selection.side.replace("_", "-")
            raise ConfigError(
                f"config.{selection.field}: {asked}, but {run.data.path(selection.file)} has "
                f"{there} {side} rows; name a larger file in config.data.{selection.file}, or set "
                f"it to at most {there}"
            )


def check_models(run: Run) -> None:
    """Resolves every model and the mesh before anything is computed; warns of idle devices.

    Raises:
      ValueError: a source cannot be resolved, the mesh does not fit the devices, the config asks
        for more positions than the model has, or policy and preference model read other tokens.
    """
    c, models = run.config, run.models
    for field_name in ("model", "feedback", "pm_train"):
        name = getattr(c, field_name).source
        if name and models.source(name).kind != "policy":
            raise ConfigError(
                f"config.{field_name}.source: {name} is a preference model; name a language model"
            )
    if c.model.architecture:
        planned = ModelSource(Path(c.model.architecture)).config
        if models.source().config != planned:
            raise ConfigError(
                f"config.model.architecture: {c.model.architecture}/config.json describes "
                f"another model than {models.base_name}; empty the field, or give that model's"
            )
    positions = c.pretrain.max_length if c.pretrain else models.source().config.max_length
    for field_name, length in (
        ("generation.context_tokens", c.generation.context_tokens),
        ("rl.prompt_tokens + response_tokens", c.rl.prompt_tokens + c.rl.response_tokens),
    ):
        if length > positions:
            raise ConfigError(
                f"config.{field_name}: {length}, but {models.base_name} was made for {positions} "
                "tokens; lower it"
            )
    _ = models.decode_mesh
    _check_tokenizer(run)
    for problem in unsplit_rows(run):
        log.warning(problem)


def _check_tokenizer(run: Run) -> None:
    """The policy's token ids go to the preference model, so both must mean the same."""
    name, models = run.config.pm_train.source, run.models
    if not name:
        return
    other = models.chat_of(models.source(name))
    if not same_tokens(models.chat.tokenizer, other.tokenizer):
        raise ValueError(
            f"config.pm_train.source: the tokenizer of {name} differs from that of the policy, "
            f"{models.base_name}; give a model with the same tokenizer"
        )


def unsplit_rows(run: Run) -> list[str]:
    """Stages whose training rows do not split over the devices, each with the remedy."""
    ways, found = batch_multiple(run.models.mesh), []
    used = make_algorithm(run.config.rl).block
    for name, (batch, parts, unit) in batch_parts(run.config).items():
        unused = name.startswith("rl") and name != used
        if batch // parts % ways and not unused:
            found.append(
                f"config.{name}.batch_size: {batch // parts} rows at once do not split over {ways} "
                f"devices, so that each computes all of them; make it, divided by {unit}, a "
                f"multiple of {ways}"
            )
    return found
