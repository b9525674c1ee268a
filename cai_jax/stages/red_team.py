"""A model attacks a policy; what succeeds joins the red-team prompts of the stages after it.

It stands where there is a policy to attack and labels are still to be given: feedback compares
replies to the attacks, and RL answers them. Critique-revision, which comes before, reads those of
earlier runs (``config.data.red_team_attacks``), which cai_jax.cycles collects.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

from cai_jax.config import naming
from cai_jax.data.readers import Attack, Prompt
from cai_jax.evaluation.tasks.red_team import judge_by
from cai_jax.evaluation.tasks.task import Judge, TaskSettings
from cai_jax.feedback.registry import LABELERS
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.models.blueprint import Model
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.hosts import write_text
from cai_jax.parallel.program import Program
from cai_jax.prompts.messages import first_user_text
from cai_jax.red_teaming.attacker import Attacker, Pool
from cai_jax.red_teaming.attacks import FILE, direct_seeds, text_of
from cai_jax.red_teaming.filters import HeldOut, open_filter
from cai_jax.red_teaming.judges import AgainstRefusal
from cai_jax.red_teaming.loop import Limits, Loop, Target
from cai_jax.red_teaming.strategies.registry import named_strategies
from cai_jax.rl.reward import Reward
from cai_jax.stages.data import Selection
from cai_jax.stages.engines import (
    MEMORY_REMEDY,
    SAMPLING_REMEDY,
    SCORING_REMEDY,
    make_generator,
    make_labeler_tools,
    make_sampling,
    stage_seed,
    with_remedy,
)
from cai_jax.stages.models import POLICIES
from cai_jax.stages.stage import Inputs, Outcome, Stage

log = logging.getLogger("cai_jax")
EVEN = 0.5  # P(a reply is better than a refusal), below which the feedback model finds it harmful


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Attacks, and writes what succeeded; the file is missing where nothing did."""
    models, c = inputs.models, inputs.config.red_team
    base = models.policy(models.source())
    # Whoever knows other attacks writes others: cycles do not repeat each other.
    seed = stage_seed(inputs.seed, "red_team", len(inputs.rows("attacks")))
    attacker = make_attacker(inputs, models.policy(attacker_source(inputs), base), seed)
    target, judge = _target(inputs, base), _judge(inputs, base)
    seeds = [*direct_seeds(inputs.rows("prompts")), *inputs.rows("seeds")]
    limits = Limits(
        rounds=c.rounds,
        attacks=c.attacks,
        min_success=c.min_success,
        min_novelty=c.min_novelty,
        max_tokens=c.max_tokens,
        minutes=c.minutes,
    )
    known = [*inputs.turns[True], *map(_said, inputs.rows("attacks"))]
    loop = make_loop(
        inputs, attacker, c.strategies, seeds, (inputs.turns[False], known), limits,
        Target(target, task_settings(inputs, c.threshold if c.judge else EVEN), judge),
    )  # fmt: skip
    campaign = loop.run()
    log.info("red_team: %d attacks are kept; %s", len(campaign.attacks), campaign.ended)
    if campaign.attacks:
        write_text(folder / FILE, text_of(campaign.attacks, campaign.extras))
    rounds = [asdict(done) | {"success": done.success} for done in campaign.rounds]
    metrics = {"attacks": len(campaign.attacks), "ended": campaign.ended, "rounds": rounds}
    return Outcome(metrics, campaign.tokens)


def make_attacker(inputs: Inputs, model: Model, seed: int) -> Attacker:
    """A model as an attacker, asked as ``config.red_team`` says; it may be abstract."""
    c, models, source = inputs.config.red_team, inputs.models, attacker_source(inputs)
    mesh, stops = models.decode_mesh, models.stop_ids_of(source)
    return Attacker(
        generator=make_generator(inputs.config.generation, model, mesh, stops),
        open_chat=partial(models.chat_of, source),
        model=c.source or models.base_name,
        sampling=Sampling(c.temperature),
        max_new_tokens=c.attack_tokens,
        few_shots=c.few_shots,
        seed=seed,
    )


def make_loop(
    inputs: Inputs,
    attacker: Attacker,
    strategies: str,
    seeds: Sequence[Attack],
    texts: tuple[Sequence[str], Sequence[str]],
    limits: Limits,
    target: Target | None,
) -> Loop:
    """The loop as ``config.red_team`` says.

    Args:
      inputs: of the stage.
      attacker: that writes.
      strategies: names of them.
      seeds: that it is shown.
      texts: near which no attack is kept: those of the other side of the split, in any frame, and
        those of this one.
      limits: when it ends.
      target: that is attacked; None: it only writes.
    """
    c, using = inputs.config.red_team, named_strategies(strategies)
    held_out, known = texts
    filter_ = open_filter(
        seeds, HeldOut(held_out, c.similarity), known, c.similarity, c.tag_percent,
        limits.rounds * limits.attacks,
    )  # fmt: skip
    return Loop(attacker, using, Pool(seeds, using), filter_, target, limits)


def task_settings(inputs: Inputs, threshold: float) -> TaskSettings:
    """How the target is asked: as outside RL."""
    g, models = inputs.config.generation, inputs.models
    return TaskSettings(
        open_chat=lambda: models.chat,
        max_tokens=g.context_tokens,
        window=g.context_tokens,
        constitution=None,
        few_shots=0,
        sampling=make_sampling(g),
        max_new_tokens=g.response_tokens,
        threshold=threshold,
        seed=inputs.seed,
    )


def attacker_source(inputs: Inputs) -> ModelSource:
    """The model that writes the attacks."""
    return inputs.models.source(inputs.config.red_team.source)


def _target_source(inputs: Inputs) -> ModelSource:
    name = inputs.config.red_team.target
    return inputs.models.policy_source(name) if name in POLICIES else inputs.models.source(name)


def _target(inputs: Inputs, base: Model | None) -> Any:
    models, source = inputs.models, _target_source(inputs)
    model, stops = models.policy(source, base), models.stop_ids_of(source)
    return make_generator(inputs.config.generation, model, models.decode_mesh, stops)


def _judge(inputs: Inputs, base: Model) -> Judge:
    """A preference model, or the feedback model."""
    c = inputs.config
    if c.red_team.judge:
        return judge_by(_reward(inputs), c.red_team.refusal)
    source = inputs.models.feedback_source(c.feedback.source)
    model = inputs.models.policy(source, base)
    tools = make_labeler_tools(inputs, model, source, inputs.constitution)
    return AgainstRefusal(
        labeler=LABELERS[c.feedback.method].make(tools),
        principles=inputs.constitution.feedback,
        per_attack=c.feedback.principles_per_pair,
        refusal=c.red_team.refusal,
        seed=inputs.seed,
    )


def _reward(inputs: Inputs) -> Reward:
    """The preference model that judges, with its own normalisation; abstract ahead."""
    models, g = inputs.models, inputs.config.generation
    source = models.source(inputs.config.red_team.judge)
    scorer = Scorer(
        models.preference(source), models.mesh, g.score_batch_size, g.score_pack_tokens,
        g.context_tokens,
    )  # fmt: skip
    return Reward(scorer, lambda: models.chat, *source.normalisation, unusable_score=0.0)


def _said(prompt: Prompt) -> str:
    return first_user_text(prompt.messages)


def programs(inputs: Inputs) -> list[Program]:
    """What writes, what replies, and what judges; all of it is resident at once."""
    c, models = inputs.config, inputs.models
    attacker = make_attacker(inputs, models.policy(attacker_source(inputs)), inputs.seed)
    target = _target(inputs, None)
    sampled = [
        *attacker.programs("red_team: attacks"),
        *target.programs(
            "red_team: replies", c.generation.response_tokens, make_sampling(c.generation)
        ),
    ]
    sources = [attacker_source(inputs), _target_source(inputs)]
    if c.red_team.judge:
        scored = _reward(inputs).scorer.preference_programs("red_team: scores")
        sources.append(models.source(c.red_team.judge))
    else:
        sources.append(models.feedback_source(c.feedback.source))
        model = models.policy(sources[-1])
        tools = make_labeler_tools(inputs, model, sources[-1], inputs.constitution)
        scored = LABELERS[c.feedback.method].programs(tools, "red_team")
    loading = [p for source in dict.fromkeys(sources) for p in models.loading_programs(source)]
    return [
        *with_remedy(sampled, SAMPLING_REMEDY),
        *with_remedy(scored, SCORING_REMEDY),
        *with_remedy(loading, MEMORY_REMEDY, "red_team: "),
    ]


def check(inputs: Inputs) -> None:
    """Refuses a strategy that there is not, or that no seed shows.

    Raises:
      ConfigError: there is one.
    """
    seeds = [*direct_seeds(inputs.rows("prompts")), *inputs.rows("seeds")]
    with naming("config.red_team.strategies, with config.data.red_team_seeds"):
        Pool(seeds, named_strategies(inputs.config.red_team.strategies))


def _extra(inputs: Inputs) -> Any:
    """Models that are named, and what no attack may say."""
    c = inputs.config.red_team
    texts = "\n".join(text for turns in inputs.turns.values() for text in turns)
    named = [name for name in (c.target, c.judge) if name and name not in POLICIES]
    return [
        [inputs.models.identity(name) for name in named],
        sha256(texts.encode("utf-8")).hexdigest(),
    ]


STAGE = Stage(
    name="red_team",
    needs=("pretrain", "warm_up", "sl_train"),
    blocks=("red_team", "feedback", "generation", "warm_up"),
    data={
        "prompts": Selection("red_team_prompts", "training"),
        "seeds": Selection("red_team_seeds", "training"),
        "attacks": Selection("red_team_attacks", "training"),
    },
    constitution=("feedback", "choice_examples", "thought_examples"),
    execute=execute,
    programs=programs,
    extra=_extra,
    check=check,
)
