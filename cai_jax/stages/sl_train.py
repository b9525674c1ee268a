"""SL-CAI: supervised finetuning on revisions, mixed with helpful samples (section 3.1)."""

from pathlib import Path

from cai_jax.data.records import Part, read_records
from cai_jax.data.rows import Revision
from cai_jax.parallel.program import Program
from cai_jax.stages.stage import Inputs, Outcome, Stage
from cai_jax.stages.training import check_lengths, finetune, finetuning


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains on the records of sl_data and leaves a checkpoint."""
    settings, records = inputs.config.sl_train, inputs.artifact("sl_data")
    parts = []
    for name in ("revisions", "helpful"):
        if (records / name).exists():
            rows = read_records(records / name, Revision)
            check_lengths("sl_train", (len(row.tokens) for row in rows), settings.sequence_length)
            parts.append(Part(records / name, float(len(rows))))
    fit = finetune(inputs, folder, settings, parts, settings.source)
    examples = int(sum(part.rate for part in parts)) * settings.epochs
    return Outcome({"examples": examples, **fit.metrics}, fit.tokens)


def programs(inputs: Inputs) -> list[Program]:
    """The update, and what makes the state before it."""
    settings = inputs.config.sl_train
    source = inputs.models.source(settings.source)
    return finetuning(inputs, settings, source).programs(source)


STAGE = Stage(
    name="sl_train",
    needs=("sl_data",),
    blocks=("sl_train",),
    execute=execute,
    programs=programs,
)
