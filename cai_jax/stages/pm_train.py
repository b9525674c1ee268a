"""Preference models: AI-labelled harmlessness and labelled helpfulness pairs (section 4.1).

There are two: the one that RL climbs, and one of other prompts and another seed, which tells
whether the climb went astray. Each is one a group, where there are groups: a second model of the
groups' mean could not tell who loses, nor choose the policy under which the worst off is best off.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from flax import nnx

from cai_jax.config import ConfigError, PMTrainConfig
from cai_jax.data.readers import LabelledPair
from cai_jax.data.records import Part, read_records, write_records
from cai_jax.data.rows import Comparison, Reply, TrainingPair
from cai_jax.evaluation.measure import joined
from cai_jax.feedback.targets import with_targets
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import sampled
from cai_jax.learning.losses import Batch, preference_loss_sum
from cai_jax.learning.packing import abstract_packed, packed_pairs, packed_rows
from cai_jax.learning.skipping import DivergedError
from cai_jax.learning.train import abstract_trainable
from cai_jax.models.blueprint import Model, Origin
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.parallel.mesh import batch_multiple, rounded_up
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.stages.data import Selection, first, first_or_all
from cai_jax.stages.engines import SCORING_REMEDY, make_scorer, stage_seed, with_remedy
from cai_jax.stages.models import CHECKPOINT, lora_config
from cai_jax.stages.stage import Inputs, Outcome, Stage
from cai_jax.stages.training import (
    Training,
    check_lengths,
    fill_rows,
    optimizer_of,
    survey_batches,
)


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains a preference model a group, and leaves a checkpoint of each.

    What groups' models differ by is their labels: pairs, order and first parameters are the same.
    """
    found = {group: _execute(inputs, folder / group, group) for group in inputs.groups}
    metrics = {
        key if key in SAME else joined(key, group): value
        for group, outcome in found.items()
        for key, value in outcome.metrics.items()
    }
    return Outcome(metrics, sum(outcome.tokens for outcome in found.values()))


def _execute(inputs: Inputs, folder: Path, group: str) -> Outcome:
    """Trains one preference model, normalises it on SL-CAI samples, and leaves a checkpoint."""
    name, settings, models = inputs.stage.name, inputs.config.pm_train, inputs.models
    comparisons = comparisons_of(inputs, PURPOSE[name], group)
    # The second model judges what the first one's labels gave: its own stay as feedback gave them.
    labels = settings.labels if name == STAGE.name else "soft"
    labelled = with_targets(comparisons, labels, inputs.seed)
    pairs = {
        "harmlessness": [_pair(row.id, row.first, row.second, target) for row, target in labelled],
        "helpfulness": [
            _helpful_pair(models.chat, pair, settings.helpfulness_weight)
            for pair in inputs.rows("helpful")
        ],
    }
    parts = [Part(folder / kind, float(len(rows))) for kind, rows in pairs.items() if rows]
    for part in parts:
        write_records(part.folder, pairs[part.folder.name], TrainingPair)
    # Both sides of every comparison are samples of the reference policy, SL-CAI.
    samples = {
        f"{row.id} {side}": getattr(row, side)
        for row in comparisons
        for side in ("first", "second")
    }
    written = [ids for pair in pairs["helpfulness"] for ids in (pair.first, pair.second)]
    replies = _helpful_replies(inputs)
    every = [*samples.values(), *written, *replies.values()]
    check_lengths("pm_train", map(len, every), settings.sequence_length)
    source = models.source(settings.source)
    vocab_size = source.config.vocab_size
    batches = partial(pair_batches, name, parts, settings, vocab_size, inputs.seed)
    split = {"parts": settings.micro_batches, "shards": batch_multiple(models.mesh)}
    survey = survey_batches(batches(), pair_tokens, partial(packed_rows, **split))
    training = _training(inputs, survey.rows)
    trainable = training.start(source)
    chat_of = partial(models.chat_of, source)
    skipping = inputs.skipping("pm_train", source.origin.name, chat_of, group)
    fit = training.fit(folder, trainable, batches, survey, inputs.saver(group), skipping)
    params = nnx.merge_state(fit.params, trainable.frozen)
    model = Model(trainable.graph, params, Origin("the preference model that it trained", name))
    scorer = _scorer(inputs, model)
    red_team, helpful = (
        drawn(said, settings.normalised_by, inputs.seed) for said in (samples, replies)
    )
    scores = scorer.preference_scores([*red_team, *helpful], f"{name}: normalise")
    mean, std = normalisation(scores[: len(red_team)], scores[len(red_team) :])
    check_normalisation(name, mean, std, skipping.lower_rate)
    start = settings.source or models.base_name
    info = CheckpointInfo(
        "preference",
        base_of(start, folder / CHECKPOINT, inputs.workdir),
        lora_config(settings.lora),
        score_mean=mean,
        score_std=std,
    )
    save_checkpoint(folder / CHECKPOINT, info, fit.params)
    return Outcome(
        {
            "labels": labels,
            **{f"{kind}_pairs": len(rows) for kind, rows in pairs.items()},
            "helpfulness_gradient_share": gradient_share(pairs, "helpfulness"),
            **fit.metrics,
            "score_mean": info.score_mean,
            "score_std": info.score_std,
        },
        fit.tokens + scorer.tokens,
    )


def drawn(said: Mapping[str, tuple[int, ...]], most: int, seed: int) -> list[tuple[int, ...]]:
    """At most so many of the replies, drawn by their ids: a mean needs no more."""
    replies = list(said.values())
    return [replies[i] for i in sampled(list(said), most, seed, "normalise")]


def _helpful_replies(inputs: Inputs) -> dict[str, tuple[int, ...]]:
    """What SL-CAI said to helpfulness prompts, by id."""
    records = inputs.artifact("feedback") / "helpful"
    rows = read_records(records, Reply) if records.exists() else []
    return {row.id: row.tokens for row in rows}


def normalisation(*sets: np.ndarray) -> tuple[float, float]:
    """Mean and standard deviation of scores, sets of prompts weighing alike; empty ones nothing.

    PPO and evaluation score replies to both: on red-team prompts alone a helpful reply would be as
    many deviations off 0 as the sets differ.
    """
    weights = np.concatenate([np.full(len(s), 1.0 / max(len(s), 1)) for s in sets])
    scores = np.concatenate(sets).astype(np.float64)
    mean = np.average(scores, weights=weights)
    return float(mean), float(np.sqrt(np.average((scores - mean) ** 2, weights=weights)))


def check_normalisation(name: str, mean: float, std: float, lower_rate: str) -> None:
    """Refuses a preference model by whose scores no reward can be normalised.

    Args:
      name: of the stage.
      mean: of the scores of SL-CAI's samples.
      std: their standard deviation.
      lower_rate: the remedy where updates were too large.

    Raises:
      DivergedError: updates broke it.
      ConfigError: it tells no sample from another.
    """
    found = (
        f"{name}: scores of SL-CAI's samples have mean {mean:.3g} and standard deviation "
        f"{std:.3g}, by which no reward can be normalised"
    )
    if not (np.isfinite(mean) and std < MOST_STD):  # NaN is not
        raise DivergedError(f"{found}: updates broke the model, which is not kept; {lower_rate}")
    if std < LEAST_STD:
        raise ConfigError(
            f"{found}: it tells no sample from another; raise config.pm_train.learning_rate or "
            "config.pm_train.epochs, or see that the samples and labels of feedback differ"
        )


def _training(inputs: Inputs, rows: int) -> Training:
    """Training on so many packed rows a batch."""
    settings, models = inputs.config.pm_train, inputs.models
    source, lora = models.source(settings.source), lora_config(settings.lora)
    return Training(
        name=inputs.stage.name,
        block="pm_train",
        blueprint=models.blueprint(PreferenceModel, source, lora, settings.trained_layers),
        loss_sum=preference_loss_sum,
        optimizer=optimizer_of(settings),
        micro_batches=settings.micro_batches,
        batch=abstract_packed(rows, settings.sequence_length, settings.batch_size, models.mesh),
        lay_out=partial(packed_pairs, rows=rows, parts=settings.micro_batches),
        mesh=models.mesh,
        seed=inputs.seed,
        warmup_steps=settings.warmup_steps,
        scored_after=True,
    )


def _scorer(inputs: Inputs, model: Model) -> Scorer:
    """Scores the samples that the preference model is normalised by."""
    length = inputs.config.pm_train.sequence_length
    return make_scorer(inputs.config.generation, model, inputs.models.mesh, length)


def programs(inputs: Inputs) -> list[Program]:
    """The update, what makes the state before it, and the scores that it is normalised by."""
    settings, mesh = inputs.config.pm_train, inputs.models.mesh
    # At most a row for each reply; a run takes as many as its fullest batch needs.
    step = settings.micro_batches * batch_multiple(mesh)
    most = rounded_up(2 * settings.batch_size, step)
    training, *fewer = (_training(inputs, rows) for rows in range(most, 0, -step))
    trainable = abstract_trainable(training.blueprint, training.mesh)
    model = Model(trainable.graph, nnx.merge_state(trainable.params, trainable.frozen))
    scores = _scorer(inputs, model).preference_programs(f"{inputs.stage.name}: scores")
    return [
        *training.programs(inputs.models.source(settings.source)),
        *(each.update(trainable) for each in fewer),
        *with_remedy(scores, SCORING_REMEDY),
    ]


def comparisons_of(inputs: Inputs, purpose: str, group: str = "") -> list[Comparison]:
    """What feedback labelled for a purpose; the pairs of all groups are the same, in one order."""
    rows = read_records(inputs.artifact("feedback") / "comparisons" / group, Comparison)
    return [row for row in rows if row.purpose == purpose]


def _helpful_pair(chat: ChatFormat, pair: LabelledPair, weight: float) -> TrainingPair:
    prompt_ids = chat.prompt_ids(pair.messages)
    chosen, rejected = (chat.judged_ids(prompt_ids, r) for r in (pair.chosen, pair.rejected))
    return _pair(pair.id, chosen, rejected, 1.0, weight)


def _pair(
    name: str, first: Sequence[int], second: Sequence[int], target: float, weight: float = 1.0
) -> TrainingPair:
    ppm = ((round(number * 1e6),) for number in (target, weight))
    return TrainingPair(name, tuple(first), tuple(second), *ppm)


def gradient_share(pairs: Mapping[str, Sequence[TrainingPair]], kind: str) -> float:
    """The share of one kind of pairs in the first gradient; 0 where there is no gradient.

    All margins are 0 before the first update, so that a pair's loss changes with its margin by its
    weight times the distance of its target from one half.
    """
    pull = {
        name: sum(abs(row.target_ppm[0] / 1e6 - 0.5) * row.weight_ppm[0] for row in rows)
        for name, rows in pairs.items()
    }
    return pull[kind] / (sum(pull.values()) or 1.0)


def pair_batches(
    name: str, parts: Sequence[Part], settings: PMTrainConfig, vocab_size: int, seed: int
) -> Iterator[Batch]:
    """Batches of pairs with soft targets, as many epochs over the parts as the settings say."""
    from cai_jax.data.tasks import PreferenceConverter, batches, mixture  # slow to import

    length, rows = settings.sequence_length, settings.batch_size
    padded = batches(
        mixture(name, parts, tuple(PreferenceConverter.TASK_FEATURES), vocab_size),
        PreferenceConverter(),
        {"first": length, "second": length, "target_ppm": 1, "weight_ppm": 1},
        rows,
        [stage_seed(seed, name, "epoch", e) for e in range(settings.epochs)],
    )
    for batch in padded:
        filled = fill_rows(batch, rows)
        filled["target"] = filled.pop("target_ppm")[:, 0].astype(np.float32) / 1e6
        filled["weight"] *= filled.pop("weight_ppm")[:, 0].astype(np.float32) / 1e6
        yield filled


def pair_tokens(batch: Batch) -> int:
    """Tokens of both sides of the pairs of a batch, rows that only fill it left out."""
    rows = batch["first_segments"].sum(axis=1) + batch["second_segments"].sum(axis=1)
    return int(np.sum(rows * (batch["weight"] > 0)))


def _stage(name: str, helpful: Selection) -> Stage:
    return Stage(
        name=name,
        needs=("feedback",),
        blocks=("pm_train", "generation"),
        data={"helpful": helpful},
        execute=execute,
        programs=programs,
    )


STAGE = _stage("pm_train", first("helpfulness_pairs", "training", "pm_train.helpfulness_pairs"))
SECOND = _stage(
    "second_model",
    first_or_all("helpfulness_pairs", "second_model", "second_model.helpfulness_pairs"),
)
SAME = ("labels", "harmlessness_pairs", "helpfulness_pairs")  # metrics that groups share
MOST_STD = 1e4  # of raw scores, which are log-odds: no labels ask for as much
LEAST_STD = 1e-6  # of raw scores; float32 rounds those of a trained model about as much
PURPOSE = {STAGE.name: "training", SECOND.name: "second_model"}  # of the rows each learns from
