"""RL-CAI: SL-CAI trained further on AI feedback (section 4.1)."""

import json
import shutil
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from cai_jax.config import ConfigError, RLConfig, naming
from cai_jax.data.readers import Prompt
from cai_jax.feedback.targets import with_targets
from cai_jax.learning.history import open_history
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.models.io.load import load_policy, loading_programs
from cai_jax.parallel import hosts
from cai_jax.parallel.hosts import write_text
from cai_jax.parallel.program import Program
from cai_jax.reading import parse_json, read_lines
from cai_jax.rl.algorithm import OFFLOAD, SAMPLING, SCORING, TRAINING, Algorithm, Labelled, Task
from cai_jax.rl.prompts import Drawn
from cai_jax.rl.registry import ALGORITHMS
from cai_jax.rl.reward import Objective
from cai_jax.rl.watch import Look, Watch
from cai_jax.stages.data import Selection, apart, first
from cai_jax.stages.engines import (
    MEMORY_REMEDY,
    SCORING_REMEDY,
    make_reward,
    stage_seed,
    with_remedy,
)
from cai_jax.stages.models import CHECKPOINT, POLICIES, Policy, lora_config
from cai_jax.stages.pm_train import comparisons_of
from cai_jax.stages.stage import Inputs, Outcome, Stage
from cai_jax.stages.workdir import link_folder

LOOKS = "looks.jsonl"  # a look a line


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains the policy and leaves a checkpoint of it, without any value function."""
    algorithm = make_algorithm(inputs.config.rl)
    opened = open_history(folder, "rl", algorithm.steps, algorithm.shown)
    with naming(f"config.{algorithm.block}"), opened as history:
        trained = algorithm.train(make_task(inputs, folder), history)
    write_text(folder / "history.json", json.dumps(history.rows, indent=1) + "\n")
    watched = _keep_best(inputs, folder, trained.watch) if trained.watch else {}
    if not watched:
        _save(inputs, folder / CHECKPOINT, trained.params)
    return Outcome(algorithm.summary(history.rows) | watched, trained.tokens)


def _save(inputs: Inputs, folder: Path, params: nnx.State) -> None:
    lora = lora_config(inputs.config.rl.lora)
    save_checkpoint(folder, CheckpointInfo("policy", _base(inputs, folder), lora), params)


def kept_policy(iteration: int) -> Policy:
    """The policy of an iteration, as the watch keeps it."""
    stages, folder = POLICIES["rl_cai"].stages, f"{CHECKPOINT}-{iteration}"
    return Policy(f"RL-CAI, iteration {iteration}", stages, folder)


def _kept(inputs: Inputs, iteration: int) -> Path:
    """Where the watch keeps a policy: what was kept stays when the stage is cut off."""
    assert inputs.progress, "ahead nothing is trained"
    return inputs.progress / kept_policy(iteration).checkpoint


def _keep(inputs: Inputs, iteration: int, params: nnx.State) -> None:
    folder = _kept(inputs, iteration)
    if hosts.is_main():  # of an iteration that is repeated
        shutil.rmtree(folder, ignore_errors=True)
    hosts.sync("a policy is kept")
    _save(inputs, folder, params)


def _keep_best(inputs: Inputs, folder: Path, watch: Watch) -> dict[str, Any]:
    """Makes the policy that the second model likes best the stage's; the others lie beside it."""
    best = watch.best.iteration
    write_text(folder / LOOKS, "".join(json.dumps(asdict(look)) + "\n" for look in watch.looks))
    others = [look.iteration for look in watch.looks[1:] if look is not watch.best]
    link_folder(_kept(inputs, best), folder / CHECKPOINT)
    for iteration in others:
        link_folder(_kept(inputs, iteration), folder / kept_policy(iteration).checkpoint)
    return {"chosen_iteration": best, "other_iterations": others, "gap": watch.best.gap}


def _base(inputs: Inputs, folder: Path) -> str:
    """What the checkpoint is trained from: SL-CAI, or its base where its update is trained on."""
    if inputs.models.policy_source("rl_cai").below == inputs.models.policy_source("sl_cai"):
        return f"../../sl_train/{CHECKPOINT}"
    return base_of(inputs.models.sl_base_name, folder, inputs.workdir)


def make_algorithm(settings: RLConfig) -> Algorithm:
    """The algorithm that the config names, with the config's constants.

    Raises:
      ConfigError: there is none of this name, or a constant is not for it.
    """
    if settings.algorithm not in ALGORITHMS:
        raise ConfigError(
            f"config.rl.algorithm: no algorithm {settings.algorithm!r}; known: "
            f"{', '.join(ALGORITHMS)}"
        )
    try:
        return ALGORITHMS[settings.algorithm](asdict(settings))
    except ValueError as error:
        raise ConfigError(f"config.rl.{error}") from None


def make_task(inputs: Inputs, folder: Path | None = None) -> Task:
    """What the algorithm has to learn from; ahead models are abstract, and there is no folder."""
    settings, models = inputs.config.rl, inputs.models
    source = models.policy_source("sl_cai")
    lora = lora_config(settings.lora)
    # Merged into bfloat16 weights, a small update would be lost.
    apart = source.lora if lora else None
    blueprint = models.blueprint(Decoder, source, apart, settings.trained_layers)
    load = partial(load_policy, source, blueprint, models.mesh)
    return Task(
        reference=blueprint,
        lora=lora,
        load=partial(blueprint.abstract, models.mesh) if models.ahead else load,
        merges=lambda model: loading_programs(source, model.params),
        open_reward=partial(_open_reward, inputs),
        open_watch=partial(_open_watch, inputs, folder) if settings.watch_every else None,
        open_chat=lambda: models.chat,
        prompts=partial(_prompts, inputs),
        comparisons=partial(_comparisons, inputs),
        open_saver=partial(inputs.saver, iterations=make_algorithm(settings).block == "rl"),
        open_skipping=partial(inputs.skipping, "rl", "SL-CAI, or the reward,", lambda: models.chat),
        optimizer=make_optimizer(
            settings.learning_rate,
            settings.warmup_steps,
            settings.max_grad_norm,
            settings.adam_eps,
            head_learning_rate=settings.value_learning_rate,
        ),
        mesh=models.mesh,
        decode_mesh=models.decode_mesh,
        stop_ids=models.stop_ids,
        bucket_tokens=inputs.config.generation.prompt_bucket_tokens,
        seed=inputs.seed,
        init_seed=stage_seed(inputs.seed, "rl", "init"),
        offload=settings.offload,
    )


def _prompts(inputs: Inputs) -> tuple[list[Prompt], list[Prompt]]:
    """Of both kinds; scores of the replies to a prompt are compared by its id."""
    red_team = [*inputs.rows("red_team"), *inputs.attacks]
    return red_team, apart(inputs.rows("helpful"), red_team)


def _comparisons(inputs: Inputs) -> list[Labelled]:
    """What the preference model learned from: AI-labelled pairs, and labelled helpfulness pairs.

    The label of a pair is the mean of its groups' labels.
    """
    labels = inputs.config.pm_train.labels
    by_group = (
        with_targets(comparisons_of(inputs, "training", group), labels, inputs.seed)
        for group in inputs.groups
    )
    found = []
    for pair in zip(*by_group, strict=True):
        row, target = pair[0][0], float(np.mean([target for _, target in pair]))
        replies = row.response_first, row.response_second
        found.append(Labelled(row.id, row.prompt, *replies, target, weight=1.0))
    weight = inputs.config.pm_train.helpfulness_weight
    return found + [
        Labelled(p.id, p.messages, p.chosen, p.rejected, target=1.0, weight=weight)
        for p in inputs.rows("pairs")
    ]


def _open_watch(
    inputs: Inputs, folder: Path | None, prompt_tokens: int, responses: int
) -> tuple[Watch, list[Program]]:
    settings, models = inputs.config.rl, inputs.models
    prompts = list[Drawn]()
    if folder:
        count = min(settings.watch_prompts, responses)
        helpful, red_team = inputs.rows("watch_helpful"), inputs.rows("watch")
        wanted = round(settings.helpful_fraction * count)
        for rows, share in ((helpful, wanted), (apart(red_team, helpful), count - wanted)):
            found = ((p.id, models.chat.prompt_ids(p.messages)) for p in rows)
            short = [Drawn(*one) for one in found if len(one[1]) <= prompt_tokens]
            prompts += short[:share]
        if not prompts:
            raise ConfigError(
                f"config.rl.prompt_tokens: {prompt_tokens}, but no development prompt is as short; "
                "raise it, or set config.rl.watch_every to 0"
            )
    watch = Watch(
        every=settings.watch_every,
        patience=settings.patience,
        prompts=prompts,
        second=make_reward(inputs, "second_model"),
        missing_stop_penalty=settings.missing_stop_penalty,
        keep=partial(_keep, inputs),
    )
    return watch, models.loading_programs(models.preference_source("second_model"))


def looks_of(settings: RLConfig) -> tuple[int, ...]:
    """Iterations after which the policy is looked at, unless RL stops before; 0: before any."""
    steps, every = make_algorithm(settings).steps, settings.watch_every
    if not every or not steps:  # the data decides how many, and nobody looks
        return ()
    return tuple(sorted({*range(0, steps + 1, every), steps}))


def read_looks(folder: Path) -> list[Look]:
    """What the watch of a finished stage saw; nothing where there was none."""
    file = folder / LOOKS
    if not file.exists():
        return []
    remedy = "run the stage rl again"
    return [Look(**parse_json(file, line, remedy, n)) for n, line in read_lines(file)]


def _open_reward(inputs: Inputs) -> tuple[Objective, list[Program]]:
    loading = inputs.models.loading_programs(inputs.models.preference_source())
    return make_reward(inputs), loading


def programs(inputs: Inputs) -> list[Program]:
    """What the algorithm compiles."""
    algorithm = make_algorithm(inputs.config.rl)
    remedies = {
        SAMPLING: "raise config.mesh.decode_tensor, or lower config.rl.batch_size",
        SCORING: SCORING_REMEDY,
        TRAINING: f"raise config.{algorithm.block}.micro_batches or the number of devices",
        OFFLOAD: "config.rl.offload=True",
    }
    found = [
        replace(p, remedy=remedies.get(p.remedy, ""), offload=remedies.get(p.offload, ""))
        for p in algorithm.programs(make_task(inputs))
    ]
    return with_remedy(found, MEMORY_REMEDY, "rl: ")


def check(inputs: Inputs) -> None:
    """Refuses an algorithm that there is not, or that has no use for the objective.

    Raises:
      ConfigError: one of these.
    """
    c = inputs.config.rl
    if make_algorithm(c).block == "rl.direct" and c.objective == "minimum":
        raise ConfigError(
            f"config.rl.objective: 'minimum', but {c.algorithm} learns from labels, of which "
            "the groups' mean is all that it can take; set it to 'mean', or take an algorithm "
            "with a reward"
        )


STAGE = Stage(
    name="rl",
    needs=("sl_train", "red_team", "feedback", "pm_train", "second_model"),
    blocks=("rl", "generation", "pm_train"),
    data={
        "red_team": Selection("red_team_prompts", "training"),
        "helpful": Selection("helpful_prompts", "training"),
        "attacks": Selection("red_team_attacks", "training"),
        "watch": Selection("red_team_prompts", "development"),
        "watch_helpful": Selection("helpful_prompts", "development"),
        "pairs": first("helpfulness_pairs", "training", "pm_train.helpfulness_pairs"),
    },
    execute=execute,
    programs=programs,
    check=check,
)
