"""RL-CAI: reinforcement learning from SL-CAI against the preference model (section 4.1)."""

import json
import logging
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from cai_jax.config import ConfigError, RLConfig
from cai_jax.data.readers import Prompt
from cai_jax.learning.history import open_history
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.train import (
    Trainable,
    abstract_state,
    abstract_trainable,
    init_state,
    initial_programs,
    make_trainable,
    state_program,
)
from cai_jax.models.blueprint import DECODER, Blueprint, Model, inside
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.load import FLOAT32, load_policy, merge_programs
from cai_jax.parallel.hosts import write_text
from cai_jax.parallel.mesh import offload_to_host
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.rl.kl import AdaptiveKL
from cai_jax.rl.loop import Limits, Online, RLState, train
from cai_jax.rl.prompts import Drawn, PromptPool
from cai_jax.rl.registry import ALGORITHMS
from cai_jax.rl.updates import OnlineAlgorithm
from cai_jax.stages.data import Selection
from cai_jax.stages.engines import (
    SCORING_REMEDY,
    make_reward,
    stage_seed,
    with_remedy,
)
from cai_jax.stages.models import CHECKPOINT, lora_config
from cai_jax.stages.stage import Inputs, Outcome, Stage

log = logging.getLogger("cai_jax")


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains the policy and leaves a checkpoint of it, without its value function."""
    settings, models = inputs.config.rl, inputs.models
    source, lora = models.policy_source("sl_cai"), lora_config(settings.lora)
    # Merged, as the policy's frozen base: both start as exactly the same function.
    reference = load_policy(source, _reference_blueprint(inputs), models.mesh)
    blueprint = _blueprint(inputs)
    start = reference.params
    if not lora:  # what is trained is float32
        start = load_policy(source, _reference_blueprint(inputs), models.mesh, FLOAT32).params
    # Under LoRA the reference is the policy's frozen base: there is nothing to offload.
    reference_params = offload_to_host(reference.params, settings.offload and not lora)
    trainable = make_trainable(blueprint, start, models.mesh, _init_seed(inputs))
    del start
    online = _online(inputs, trainable, reference)
    del reference
    reward = make_reward(inputs, settings.offload)
    pool = _pool(inputs, online.algorithm, models.chat)
    state = RLState(0, init_state(trainable.params, online.optimizer), settings.kl_coef)
    with open_history(folder, "rl", settings.iterations, ("score", "kl_k3")) as history:
        state, tokens = train(
            online,
            state,
            settings.iterations,
            reference_params,
            reward,
            pool.draw,
            AdaptiveKL(settings.kl_target, settings.kl_horizon),
            Limits(
                first_ratio_error=settings.max_first_ratio_error,
                sampler_gap=settings.max_sampler_gap,
                missing_stop_penalty=settings.missing_stop_penalty,
            ),
            history,
        )
    rows = history.rows
    write_text(folder / "history.json", json.dumps(rows, indent=1) + "\n")
    info = CheckpointInfo("policy", f"../../sl_train/{CHECKPOINT}", lora)
    trained = state.train.params
    trained = trained if blueprint.module is Decoder else inside(DECODER, trained)
    save_checkpoint(folder / CHECKPOINT, info, trained)
    return Outcome(
        {
            "iterations": settings.iterations,
            "first_score": rows[0]["score"],
            "last_score": rows[-1]["score"],
            "last_kl_k1": rows[-1]["kl_k1"],
            "last_kl_k3": rows[-1]["kl_k3"],
            "max_first_ratio_error": max(row["first_ratio_error"] for row in rows),
            "max_first_approx_kl": max(row["first_approx_kl"] for row in rows),
            "max_sampler_gap_mean": max(row["sampler_gap_mean"] for row in rows),
        },
        tokens,
    )


def make_algorithm(settings: RLConfig) -> OnlineAlgorithm:
    """The algorithm that the config names, with the config's constants.

    Raises:
      ConfigError: there is none of this name.
    """
    if settings.algorithm not in ALGORITHMS:
        raise ConfigError(
            f"config.rl.algorithm: no algorithm {settings.algorithm!r}; known: "
            f"{', '.join(ALGORITHMS)}"
        )
    kind = ALGORITHMS[settings.algorithm]
    return kind(**{field.name: getattr(settings, field.name) for field in fields(kind)})


def _blueprint(inputs: Inputs) -> Blueprint:
    """Of what is trained."""
    settings, models = inputs.config.rl, inputs.models
    module, source = make_algorithm(settings).module, models.source()
    return models.blueprint(module, source, lora_config(settings.lora), settings.trained_layers)


def _reference_blueprint(inputs: Inputs) -> Blueprint:
    """Of the reference, which freezes the layers that the policy freezes."""
    return replace(_blueprint(inputs), module=Decoder, lora=None)


def _online(inputs: Inputs, trainable: Trainable, reference: Model) -> Online:
    settings, models = inputs.config.rl, inputs.models
    return Online(
        algorithm=make_algorithm(settings),
        blueprint=_blueprint(inputs),
        trainable=trainable,
        reference=reference,
        optimizer=make_optimizer(
            settings.learning_rate, settings.warmup_steps, settings.max_grad_norm, settings.adam_eps
        ),
        mesh=models.mesh,
        decode_mesh=models.decode_mesh,
        stop_ids=models.stop_ids,
        batch_size=settings.batch_size,
        max_new_tokens=settings.response_tokens,
        seed=inputs.seed,
    )


def _init_seed(inputs: Inputs) -> int:
    return stage_seed(inputs.seed, "rl", "init")


def _pool(inputs: Inputs, algorithm: OnlineAlgorithm, chat: ChatFormat) -> PromptPool:
    """The training prompts that are short enough.

    Raises:
      ValueError: a kind that has a share has none.
    """
    settings = inputs.config.rl
    red_team, helpful = inputs.rows("red_team"), inputs.rows("helpful")
    fits = lambda prompts: _short(prompts, chat, settings.prompt_tokens)
    pool = PromptPool(
        red_team=fits(red_team),
        helpful=fits(helpful),
        count=settings.batch_size // algorithm.samples_per_prompt,
        helpful_fraction=settings.helpful_fraction,
        samples=algorithm.samples_per_prompt,
        seed=inputs.seed,
    )
    left_out = len(red_team) + len(helpful) - len(pool.red_team) - len(pool.helpful)
    if left_out:
        log.info("rl: %d prompts are longer than config.rl.prompt_tokens", left_out)
    try:
        pool.draw(0)
    except ValueError as error:
        raise ValueError(
            f"{error}; raise config.rl.prompt_tokens, or change config.rl.helpful_fraction"
        ) from None
    return pool


def _short(prompts: list[Prompt], chat: ChatFormat, longest: int) -> list[Drawn]:
    rows = (Drawn(prompt.id, chat.prompt_ids(prompt.messages)) for prompt in prompts)
    return [row for row in rows if len(row.ids) <= longest]


def check(inputs: Inputs) -> None:
    """Refuses an algorithm that there is not."""
    make_algorithm(inputs.config.rl)


def programs(inputs: Inputs) -> list[Program]:
    """An iteration: weights to the sampler, responses, scores, advantages, updates; and set-up."""
    settings, models = inputs.config.rl, inputs.models
    blueprint, lora = _blueprint(inputs), lora_config(settings.lora)
    trainable = abstract_trainable(blueprint, models.mesh)
    reference = _reference_blueprint(inputs).abstract(models.mesh)
    online = _online(inputs, trainable, reference)
    weights, *responses, advantages, updates = online.programs()
    reward = make_reward(inputs, settings.offload)
    scores = reward.scorer.preference_programs(
        "scores", settings.prompt_tokens + settings.response_tokens
    )

    opt_state = abstract_state(trainable.params, online.optimizer).opt_state
    policy = (trainable.params, opt_state, trainable.frozen)
    judge = (reward.scorer.abstract_params,)
    # Under LoRA the reference is the policy's frozen base.
    apart = () if lora else (reference.params,)
    advantages = replace(advantages, aliased=(reference.params,) if lora else ())
    sampling = "raise config.mesh.decode_tensor, or lower config.rl.batch_size"
    training = "raise config.rl.micro_batches or the number of devices"
    hold = partial(_with_resident, settings.offload)
    iteration = [
        *with_remedy([hold(weights, (opt_state,), (*judge, *apart))], sampling),
        *with_remedy([hold(p, policy, (*judge, *apart)) for p in responses], sampling),
        *with_remedy([hold(p, policy, apart) for p in scores], SCORING_REMEDY),
        *with_remedy([hold(advantages, (opt_state,), judge)], training),
        *with_remedy([hold(updates, (), (*judge, *apart))], training),
    ]
    source = models.policy_source("sl_cai")
    starts = [reference]
    if not lora:
        starts.append(_reference_blueprint(inputs).abstract(models.mesh, FLOAT32))
    set_up = [program for model in starts for program in merge_programs(source, model.params)]
    set_up += models.loading_programs(models.preference_source())
    set_up += initial_programs(blueprint, models.mesh, _init_seed(inputs))
    set_up.append(state_program(trainable.params, online.optimizer))
    return with_remedy([*iteration, *set_up], training, "rl: ")


def _with_resident(offload: bool, program: Program, stay: Any, waits: Any) -> Program:
    """The program, with what is on the devices meanwhile; ``waits`` can be offloaded."""
    if offload:
        return replace(program, resident=stay)
    how = "config.rl.offload=True" if waits else ""
    return replace(program, resident=(*stay, *waits), offload=how)


STAGE = Stage(
    name="rl",
    needs=("sl_train", "pm_train"),
    blocks=("rl", "generation"),
    data={
        "red_team": Selection("red_team_prompts", "training"),
        "helpful": Selection("helpful_prompts", "training"),
    },
    execute=execute,
    programs=programs,
    check=check,
)
