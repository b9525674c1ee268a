"""SL-CAI: supervised finetuning on revisions, mixed with helpful samples (section 3.1)."""

from collections.abc import Callable
from pathlib import Path

from cai_jax.data.records import read_records
from cai_jax.data.tasks import Part
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.learning.train import make_trainable
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.models.io.load import decoder_builder
from cai_jax.models.io.sources import ModelSource
from cai_jax.stages.plan import Plan, Step
from cai_jax.stages.run import Outcome, Run, Stage, frozen_layers, lora_config
from cai_jax.stages.training import (
    check_lengths,
    optimizer_of,
    packed_batches,
    packed_tokens,
    train,
)


def run(run: Run, folder: Path) -> Outcome:
    """Trains the base model on the records of sl_data and leaves a checkpoint."""
    settings, source = run.config.sl_train, run.source("")
    lora = lora_config(settings.lora)
    start = run.merged(source, trained_fully=lora is None).params
    trainable = make_trainable(_builder(run, source), start, lora, run.mesh)
    del start  # all of it was copied where all of it is trained
    records = run.workdir / "sl_data"
    parts = []
    for name in ("revisions", "helpful"):
        if (records / name).exists():
            rows = read_records(records, name)
            check_lengths("sl_train", (len(r["tokens"]) for r in rows), settings.sequence_length)
            parts.append(Part(records, name, float(len(rows))))
    params, history, tokens = train(
        run,
        folder,
        "sl_train",
        trainable,
        sft_loss_sum,
        optimizer_of(settings),
        packed_batches(run, "sl_train", parts, settings, source.config.vocab_size),
        settings.micro_batches,
        packed_tokens,
    )
    base = base_of(run.model, folder / "checkpoint", run.workdir)
    info = CheckpointInfo("policy", base, lora)
    save_checkpoint(folder / "checkpoint", info, params)
    return Outcome(
        {
            "examples": int(sum(part.rate for part in parts)) * settings.epochs,
            "steps": len(history),
            "first_loss": history[0]["loss"],
            "last_loss": history[-1]["loss"],
        },
        tokens,
    )


def _builder(run: Run, source: ModelSource) -> Callable[[], Decoder]:
    settings = run.config.sl_train
    frozen = frozen_layers(settings.trained_layers, source)
    seed = run.stage_seed("sl_train", "init")
    return decoder_builder(source, run.dtype, lora_config(settings.lora), frozen, seed)


def steps(plan: Plan) -> list[Step]:
    """The update."""
    settings = plan.run.config.sl_train
    source = plan.source()
    build = _builder(plan.run, source)
    trainable = plan.trainable(build, lora_config(settings.lora))
    rows = plan.rows(plan.run.mesh, settings.batch_size, settings.sequence_length)
    batch = {name: rows for name in ("tokens", "segments", "loss_mask")}
    return [plan.train_step("sl_train", settings, source, trainable, sft_loss_sum, batch)]


STAGE = Stage(
    name="sl_train",
    inputs=("sl_data",),
    settings=lambda run: [run.config.sl_train],
    run=run,
)
