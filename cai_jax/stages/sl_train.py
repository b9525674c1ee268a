"""SL-CAI: supervised finetuning on revisions, mixed with helpful samples (section 3.1)."""

from pathlib import Path

import numpy as np

from cai_jax.data.records import read_records
from cai_jax.data.tasks import CausalLMConverter, Part, batches, mixture
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.learning.train import make_optimizer, make_trainable
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.models.io.load import decoder_builder
from cai_jax.stages.run import Outcome, Run, Stage, frozen_layers, lora_config
from cai_jax.stages.training import fill_packed, train


def run(run: Run, folder: Path) -> Outcome:
    """Trains the base model on the records of sl_data and leaves a checkpoint."""
    settings, source = run.config.sl_train, run.source("")
    lora = lora_config(settings.lora)
    trainable = make_trainable(
        decoder_builder(
            source,
            run.dtype,
            lora,
            frozen_layers(settings.trained_layers, source),
            run.stage_seed("sl_train", "init"),
        ),
        run.merged(source, trained_fully=lora is None).params,
        lora,
        run.mesh,
    )
    records = run.workdir / "sl_data"
    parts = []
    for name in ("revisions", "helpful"):
        if (records / name).exists():
            rows = read_records(records, name)
            longest = max(len(row["tokens"]) for row in rows)
            if longest > settings.sequence_length:
                raise ValueError(
                    f"sl_train: a dialogue of {name} has {longest} tokens; set "
                    f"config.sl_train.sequence_length (now {settings.sequence_length}) to at "
                    "least that"
                )
            parts.append(Part(records, name, float(len(rows))))
    mix = mixture("sl_train", parts, ("tokens", "loss_mask"), source.config.vocab_size)
    length = settings.sequence_length
    packed = batches(
        mix,
        CausalLMConverter(),
        {"tokens": length, "loss_mask": length},
        settings.batch_size,
        [run.stage_seed("sl_train", "epoch", e) for e in range(settings.epochs)],
    )
    params, history, tokens = train(
        run,
        folder,
        "sl_train",
        trainable,
        sft_loss_sum,
        make_optimizer(settings.learning_rate, settings.warmup_steps, settings.max_grad_norm),
        (fill_packed(batch, settings.batch_size) for batch in packed),
        settings.micro_batches,
        lambda batch: int(np.sum(batch["segments"] > 0)),
    )
    base = base_of(run.model, folder / "checkpoint")
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


STAGE = Stage(
    name="sl_train", inputs=("sl_data",), settings=lambda run: [run.config.sl_train], run=run
)
