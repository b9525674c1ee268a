"""What is checked before a run computes anything: files, models, and how they fit the devices."""

import logging
from collections.abc import Sequence
from operator import attrgetter

from cai_jax.config import Config, ConfigError, batch_parts, naming
from cai_jax.data.overlap import equal_turns
from cai_jax.learning.tracking import check_tracking
from cai_jax.models.io.load import load_update
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.hosts import is_main
from cai_jax.parallel.mesh import batch_multiple
from cai_jax.prompts.chat import open_chat, same_tokens
from cai_jax.stages.evaluate import STAGE as EVALUATE
from cai_jax.stages.evaluate import check_benchmarks
from cai_jax.stages.models import POLICIES
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.rl import make_algorithm
from cai_jax.stages.room import check_room
from cai_jax.stages.stage import Run, Stage
from cai_jax.stages.workdir import CONFIG
from cai_jax.storage.files import resolved

log = logging.getLogger("cai_jax")


def check_inputs(run: Run, stages: Sequence[Stage]) -> None:
    """Reads every file that people write, so that a bad one stops the run at its start.

    Raises:
      ValueError: a file cannot be used, or holds less than the config asks for.
    """
    if is_main():
        check_tracking()
    earlier = run.config.reuse_from
    if earlier and not (resolved(earlier) / CONFIG).exists():
        raise ConfigError(
            f"config.reuse_from: {earlier} is the workdir of no run; name one that holds {CONFIG}, "
            "or empty the field"
        )
    for file, purpose in dict.fromkeys(
        (s.file, s.purpose) for stage in stages for s in stage.data.values()
    ):
        if run.data.path(file) and not run.data.of(file, purpose):
            raise ConfigError(
                f"{run.data.path(file)}: the split leaves none of its {len(run.data.rows(file))} "
                f"rows for {purpose}; add rows, or change the percentages of config.data"
            )
    _check_overlap(run)
    for stage in stages:
        stage.check(run.inputs(stage))
        _check_counts(run, stage)


def _check_overlap(run: Run) -> None:
    """Refuses a first human turn in two purposes, and tells of near-duplicates."""
    if equal := equal_turns(run.data.turns):
        one, other = equal[0]
        raise ConfigError(
            f"{other.where} ({other.purpose}) says what {one.where} ({one.purpose}) says, "
            f"{one.text[:60]!r}, one of {len(equal)} such overlaps; reword or delete one of the "
            "two, or, where both are prompts or pairs, give both rows the same group"
        )
    overlap = run.data.overlap
    if not overlap.near_duplicates:
        log.info("splits: no first human turn in two purposes, exactly or nearly")
        return
    counts = (f"{n} of {pair}" for pair, n in overlap.near_duplicates.items())
    worst = overlap.worst[0]
    log.warning(
        "splits: no first human turn in two purposes; near-duplicates: %s. The nearest (%.2f): "
        "%s, %r, and %s, %r; reword one, or give both rows the same group",
        "; ".join(counts),
        worst.similarity,
        *(worst.turn.where, worst.turn.text[:60], worst.other.where, worst.other.text[:60]),
    )


def _check_counts(run: Run, stage: Stage) -> None:
    """Refuses a stage that declares more rows than its files have."""
    for selection in stage.data.values():
        asked, there = (
            selection.count(run.config),
            len(run.data.of(selection.file, selection.purpose)),
        )
        if selection.field and asked is not None and asked > there:
            raise ConfigError(
                f"config.{selection.field}: {asked}, but {run.data.path(selection.file)} has "
                f"{there} rows for {selection.purpose}; name a larger file in "
                f"config.data.{selection.file}, or set it to at most {there}"
            )


def check_models(run: Run) -> None:
    """Resolves every model and the mesh before anything is computed; warns of idle devices.

    Raises:
      ValueError: a source cannot be resolved, the mesh does not fit the devices, the config or a
        benchmark asks for more positions than a model has, a model reads other tokens than the
        policy or embeds fewer, or a row does not fit (``check_rows``, which has to wait where the
        run pretrains the model).
    """
    c, models = run.config, run.models
    sources = ("model.source", "sl_train.source", "feedback.source", "pm_train.source")
    kinds = dict.fromkeys((*sources, "evaluate.judge", "red_team.source"), "policy")
    if c.red_team.rounds:
        kinds |= {"red_team.target": "policy", "red_team.judge": "preference"}
    what = {"policy": "language model", "preference": "preference model"}
    for field_name, kind in kinds.items():
        name = attrgetter(field_name)(c)
        if name and name not in POLICIES and models.source(name).kind != kind:
            raise ConfigError(
                f"config.{field_name}: {name} is a {what[models.source(name).kind]}; name a "
                f"{what[kind]}"
            )
        if name and name not in POLICIES:
            _check_positions(c, field_name, models.source(name))
    if c.model.architecture:
        planned = ModelSource(resolved(c.model.architecture)).config
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
    _check_critic(run)
    _check_tokenizer(run)
    if not c.pretrain:
        check_rows(run)
    if EVALUATE.name in c.stages:
        check_benchmarks(run.inputs(EVALUATE))
    for problem in unsplit_rows(run):
        log.warning(problem)


def check_rows(run: Run) -> None:
    """Measures every row that the run's models will read; where one is pretrained, it is there.

    Raises:
      ConfigError: a row does not fit, or too few are left (``room``).
    """
    check_room(run)
    if any(run.data.left_out.values()):
        for stage in stages_of(run.config):
            _check_counts(run, stage)


def _check_positions(c: Config, field_name: str, source: ModelSource) -> None:
    """Refuses a model that cannot read what others of the run can."""
    positions, asked = source.config.max_length, c.generation.context_tokens
    if asked > positions:
        raise ConfigError(
            f"config.generation.context_tokens: {asked}, but {source.path}, which "
            f"config.{field_name} names, was made for {positions} tokens; lower it"
        )


def _check_critic(run: Run) -> None:
    """Reads the adapter that the config names, so that one of another model stops the run here."""
    models = run.models
    if not run.config.warm_up.source:
        return
    critic = models.critic_source
    try:
        load_update(critic, models.mesh)
    except ValueError as error:
        raise ConfigError(
            f"config.warm_up.source: {error}. Is it an adapter of {models.base_name}? Empty the "
            "field, or train one with config.warm_up.epochs"
        ) from error


def _check_tokenizer(run: Run) -> None:
    """One tokenizer serves policies and preference models: its ids must mean the same to all.

    The models' own tables must have an entry for each.
    """
    models, fields = run.models, ["sl_train.source", "pm_train.source"]
    fields += ["red_team.target", "red_team.judge"] if run.config.red_team.rounds else []
    for field_name in fields:
        name = attrgetter(field_name)(run.config)
        if not name or name in POLICIES:
            continue
        source = models.source(name)
        with naming(f"config.{field_name}"):
            chat = open_chat(source, needs_template=False)
        if not same_tokens(models.chat.tokenizer, chat.tokenizer):
            raise ConfigError(
                f"config.{field_name}: the tokenizer of {name} differs from that of "
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
