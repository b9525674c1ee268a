"""RL-CAI: SL-CAI trained further on AI feedback (section 4.1)."""

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from cai_jax.config import ConfigError, RLConfig, naming
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison
from cai_jax.feedback.targets import with_targets
from cai_jax.learning.history import open_history
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.load import load_policy, merge_programs
from cai_jax.parallel.hosts import write_text
from cai_jax.parallel.program import Program
from cai_jax.rl.algorithm import OFFLOAD, SAMPLING, SCORING, TRAINING, Algorithm, Labelled, Task
from cai_jax.rl.registry import ALGORITHMS
from cai_jax.rl.reward import Reward
from cai_jax.stages.data import Selection, first
from cai_jax.stages.engines import (
    MEMORY_REMEDY,
    SCORING_REMEDY,
    make_reward,
    stage_seed,
    with_remedy,
)
from cai_jax.stages.models import CHECKPOINT, lora_config
from cai_jax.stages.stage import Inputs, Outcome, Stage


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains the policy and leaves a checkpoint of it, without any value function."""
    algorithm = make_algorithm(inputs.config.rl)
    opened = open_history(folder, "rl", algorithm.steps, algorithm.shown)
    with naming(f"config.{algorithm.block}"), opened as history:
        trained = algorithm.train(make_task(inputs), history)
    write_text(folder / "history.json", json.dumps(history.rows, indent=1) + "\n")
    lora = lora_config(inputs.config.rl.lora)
    info = CheckpointInfo("policy", f"../../sl_train/{CHECKPOINT}", lora)
    save_checkpoint(folder / CHECKPOINT, info, trained.params)
    return Outcome(algorithm.summary(history.rows), trained.tokens)


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


def make_task(inputs: Inputs) -> Task:
    """What the algorithm has to learn from; models are abstract ahead."""
    settings, models = inputs.config.rl, inputs.models
    source = models.policy_source("sl_cai")
    blueprint = models.blueprint(Decoder, source, trained_layers=settings.trained_layers)
    load = partial(load_policy, source, blueprint, models.mesh)
    return Task(
        reference=blueprint,
        lora=lora_config(settings.lora),
        load=partial(blueprint.abstract, models.mesh) if models.ahead else load,
        merges=lambda model: merge_programs(source, model.params),
        open_reward=partial(_open_reward, inputs),
        open_chat=lambda: models.chat,
        prompts=lambda: (inputs.rows("red_team"), inputs.rows("helpful")),
        comparisons=partial(_comparisons, inputs),
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
        seed=inputs.seed,
        init_seed=stage_seed(inputs.seed, "rl", "init"),
        offload=settings.offload,
    )


def _comparisons(inputs: Inputs) -> list[Labelled]:
    """What the preference model learned from: AI-labelled pairs, and labelled helpfulness pairs."""
    rows = read_records(inputs.artifact("feedback") / "comparisons", Comparison)
    labelled = with_targets(rows, inputs.config.pm_train.labels, inputs.seed)
    return [
        *(
            Labelled(r.id, r.prompt, r.response_first, r.response_second, target)
            for r, target in labelled
        ),
        *(Labelled(p.id, p.messages, p.chosen, p.rejected, 1.0) for p in inputs.rows("pairs")),
    ]


def _open_reward(inputs: Inputs) -> tuple[Reward, list[Program]]:
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
    """Refuses an algorithm that there is not."""
    make_algorithm(inputs.config.rl)


STAGE = Stage(
    name="rl",
    needs=("sl_train", "feedback", "pm_train"),
    blocks=("rl", "generation", "pm_train"),
    data={
        "red_team": Selection("red_team_prompts", "training"),
        "helpful": Selection("helpful_prompts", "training"),
        "pairs": first("helpfulness_pairs", "training", "pm_train.helpfulness_pairs"),
    },
    execute=execute,
    programs=programs,
    check=check,
)
