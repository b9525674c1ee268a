"""The preference model: AI-labelled harmlessness and labelled helpfulness pairs (section 4.1)."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import nnx

from cai_jax.data.readers import LabelledPair
from cai_jax.data.records import INTS, TEXT, read_records, write_records
from cai_jax.data.tasks import Part, PreferenceConverter, batches, mixture
from cai_jax.generation.scoring import row_scores
from cai_jax.learning.losses import Batch, preference_loss_sum
from cai_jax.learning.train import make_trainable
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.models.io.load import Model
from cai_jax.models.io.sources import ModelSource, stamp
from cai_jax.prompts.chat import conversation
from cai_jax.stages.plan import Plan, Step
from cai_jax.stages.run import Outcome, Run, Stage, frozen_layers, lora_config
from cai_jax.stages.training import check_lengths, fill_rows, optimizer_of, train

PAIR_FEATURES = {"id": TEXT, "first": INTS, "second": INTS, "target_ppm": INTS}


def run(run: Run, folder: Path) -> Outcome:
    """Trains the preference model, normalises it on the comparisons, and leaves a checkpoint."""
    settings = run.config.pm_train
    source, lora = run.source(settings.source), lora_config(settings.lora)
    start = run.merged(source, trained_fully=lora is None).params
    build = _builder(run, source)
    trainable = make_trainable(build, start, lora, run.mesh, decoder_name="decoder")
    del start  # all of it was copied where all of it is trained
    comparisons = read_records(run.workdir / "feedback", "comparisons")
    parts = [Part(run.workdir / "feedback", "comparisons", float(len(comparisons)))]
    helpful = run.training(run.helpfulness_pairs, settings.helpfulness_pairs)
    if helpful:
        rows = [_helpful_row(run, pair) for pair in helpful]
        write_records(folder, "helpfulness", PAIR_FEATURES, rows)
        parts.append(Part(folder, "helpfulness", float(len(rows))))
    length = settings.sequence_length
    every = comparisons + (rows if helpful else [])
    check_lengths("pm_train", (len(r[side]) for r in every for side in ("first", "second")), length)
    mix = mixture("pm_train", parts, ("first", "second", "target_ppm"), source.config.vocab_size)
    padded = batches(
        mix,
        PreferenceConverter(),
        {"first": length, "second": length, "target_ppm": 1},
        settings.batch_size,
        [run.stage_seed("pm_train", "epoch", e) for e in range(settings.epochs)],
    )
    params, history, tokens = train(
        run,
        folder,
        "pm_train",
        trainable,
        preference_loss_sum,
        optimizer_of(settings),
        (_with_target(batch, settings.batch_size) for batch in padded),
        settings.micro_batches,
        _tokens,
    )
    model = Model(trainable.graph, nnx.merge_state(params, trainable.frozen))
    scorer = run.scorer(model, run.mesh, longest=length)
    # Both sides of every comparison are samples of the reference policy, SL-CAI.
    samples = [row[side] for row in comparisons for side in ("first", "second")]
    scores = scorer.preference_scores(samples, "pm_train: normalise")
    base = base_of(settings.source or run.model, folder / "checkpoint", run.workdir)
    info = CheckpointInfo("preference", base, lora)
    info = replace(info, score_mean=float(scores.mean()), score_std=float(max(scores.std(), 1e-6)))
    save_checkpoint(folder / "checkpoint", info, params)
    return Outcome(
        {
            "harmlessness_pairs": len(comparisons),
            "helpfulness_pairs": len(helpful),
            "steps": len(history),
            "first_loss": history[0]["loss"],
            "last_loss": history[-1]["loss"],
            "score_mean": info.score_mean,
            "score_std": info.score_std,
        },
        tokens + scorer.tokens,
    )


def _builder(run: Run, source: ModelSource) -> Callable[[], PreferenceModel]:
    settings, seed = run.config.pm_train, run.stage_seed("pm_train", "init")
    lora, frozen = lora_config(settings.lora), frozen_layers(settings.trained_layers, source)
    return lambda: PreferenceModel(source.config, lora, run.dtype, frozen, rngs=nnx.Rngs(seed))


def steps(plan: Plan) -> list[Step]:
    """The update, and the scores that it is normalised by."""
    settings, mesh = plan.run.config.pm_train, plan.run.mesh
    source = plan.source(settings.source)
    build = _builder(plan.run, source)
    trainable = plan.trainable(build, lora_config(settings.lora))
    rows = plan.rows(mesh, settings.batch_size, settings.sequence_length)
    batch = {name: rows for name in ("first", "second", "first_segments", "second_segments")}
    single = plan.rows(mesh, settings.batch_size, dtype=jnp.float32)
    batch |= {name: single for name in ("target", "weight")}
    update = plan.train_step("pm_train", settings, source, trainable, preference_loss_sum, batch)
    model = Model(trainable.graph, nnx.merge_state(trainable.params, trainable.frozen))
    length = settings.sequence_length
    return [update, plan.score("pm_train: scores", source, row_scores, model, mesh, length)]


def _helpful_row(run: Run, pair: LabelledPair) -> dict:
    prompt_ids = run.chat.prompt_ids(conversation(pair.prompt))
    return {
        "id": pair.id,
        "first": run.chat.judged_ids(prompt_ids, pair.chosen),
        "second": run.chat.judged_ids(prompt_ids, pair.rejected),
        "target_ppm": [1_000_000],
    }


def _with_target(batch: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    filled = fill_rows(batch, rows)
    filled["target"] = filled.pop("target_ppm")[:, 0].astype(np.float32) / 1e6
    return filled


def _tokens(batch: Batch) -> int:
    rows = batch["first_segments"].sum(axis=1) + batch["second_segments"].sum(axis=1)
    return int(np.sum(rows * batch["weight"]))


STAGE = Stage(
    name="pm_train",
    inputs=("feedback",),
    settings=lambda run: [
        run.config.pm_train,
        run.config.generation,
        run.file_hashes("helpfulness_pairs"),
        stamp(run.config.pm_train.source),
    ],
    run=run,
)
