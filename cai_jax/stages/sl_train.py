"""SL-CAI: supervised finetuning on revisions, mixed with helpful samples (section 3.1)."""

from functools import partial
from pathlib import Path

import jax.numpy as jnp

from cai_jax.data.records import read_records
from cai_jax.data.rows import Revision
from cai_jax.data.tasks import Part
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.parallel.mesh import abstract_batch
from cai_jax.parallel.program import Program
from cai_jax.stages.models import CHECKPOINT, lora_config
from cai_jax.stages.stage import Inputs, Outcome, Stage
from cai_jax.stages.training import (
    Training,
    check_lengths,
    optimizer_of,
    packed_batches,
    packed_tokens,
    survey_batches,
)


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains on the records of sl_data and leaves a checkpoint."""
    settings, records = inputs.config.sl_train, inputs.artifact("sl_data")
    parts = []
    for name in ("revisions", "helpful"):
        if (records / name).exists():
            rows = read_records(records / name, Revision)
            check_lengths("sl_train", (len(row.tokens) for row in rows), settings.sequence_length)
            parts.append(Part(records / name, float(len(rows))))
    training = _training(inputs)
    vocab_size = training.blueprint.config.vocab_size
    batches = partial(packed_batches, "sl_train", parts, settings, vocab_size, inputs.seed)
    trainable = training.start(inputs.models.source(settings.source))
    fit = training.fit(folder, trainable, batches(), survey_batches(batches(), packed_tokens))
    base = base_of(inputs.models.sl_base_name, folder / CHECKPOINT, inputs.workdir)
    info = CheckpointInfo("policy", base, lora_config(settings.lora))
    save_checkpoint(folder / CHECKPOINT, info, fit.params)
    return Outcome(
        {
            "examples": int(sum(part.rate for part in parts)) * settings.epochs,
            "steps": len(fit.history),
            "first_loss": fit.history[0]["loss"],
            "last_loss": fit.history[-1]["loss"],
        },
        fit.tokens,
    )


def _training(inputs: Inputs) -> Training:
    settings, models = inputs.config.sl_train, inputs.models
    source, lora = models.source(settings.source), lora_config(settings.lora)
    rows = abstract_batch((settings.batch_size, settings.sequence_length), jnp.int32, models.mesh)
    return Training(
        name="sl_train",
        blueprint=models.blueprint(Decoder, source, lora, settings.trained_layers),
        loss_sum=sft_loss_sum,
        optimizer=optimizer_of(settings),
        micro_batches=settings.micro_batches,
        batch={name: rows for name in ("tokens", "segments", "loss_mask")},
        mesh=models.mesh,
        seed=inputs.seed,
        warmup_steps=settings.warmup_steps,
    )


def programs(inputs: Inputs) -> list[Program]:
    """The update, and what makes the state before it."""
    return _training(inputs).programs(inputs.models.source(inputs.config.sl_train.source))


STAGE = Stage(
    name="sl_train",
    needs=("sl_data",),
    blocks=("sl_train",),
    execute=execute,
    programs=programs,
)
