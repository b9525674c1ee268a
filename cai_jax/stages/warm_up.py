"""A critic for small models: a low-rank adapter trained on written demonstrations of the form.

Large models learn critique, revision and choice from few-shots; small ones do not. The adapter
criticises, revises and gives feedback; the model without it answers, and the method changes that.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import jax.numpy as jnp

from cai_jax.config import ConfigError
from cai_jax.constitution.schema import CritiquePrinciple
from cai_jax.data.readers import Demonstration, RevisionDemonstration
from cai_jax.data.records import write_records
from cai_jax.data.rows import TrainingDialogue
from cai_jax.data.tasks import Part
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.parallel.mesh import abstract_batch
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.critique_revision import REVISION_MARK, revision_messages
from cai_jax.prompts.feedback import ANSWER, choice_messages, thought_prefill
from cai_jax.prompts.messages import Dialogue, assistant
from cai_jax.stages.data import Selection
from cai_jax.stages.models import CHECKPOINT, lora_config
from cai_jax.stages.stage import Inputs, Outcome, Stage
from cai_jax.stages.training import (
    Training,
    check_lengths,
    dialogue_row,
    optimizer_of,
    packed_batches,
    packed_tokens,
    survey_batches,
)


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains on the demonstrations and leaves a checkpoint."""
    settings, models = inputs.config.warm_up, inputs.models
    shown = inputs.rows("demonstrations")
    rows = list(rows_of(models.chat, shown))
    check_lengths("warm_up", (len(row.tokens) for row in rows), settings.sequence_length)
    write_records(folder / "dialogues", rows, TrainingDialogue)
    parts, training = [Part(folder / "dialogues", 1.0)], _training(inputs)
    vocab_size = training.blueprint.config.vocab_size
    batches = partial(packed_batches, "warm_up", parts, settings, vocab_size, inputs.seed)
    trainable = training.start(models.source())
    fit = training.fit(folder, trainable, batches(), survey_batches(batches(), packed_tokens))
    base = base_of(models.base_name, folder / CHECKPOINT, inputs.workdir)
    info = CheckpointInfo("policy", base, lora_config(settings.lora))
    save_checkpoint(folder / CHECKPOINT, info, fit.params)
    return Outcome(
        {
            "demonstrations": len(shown),
            "dialogues": len(rows),
            "steps": len(fit.history),
            "first_loss": fit.history[0]["loss"],
            "last_loss": fit.history[-1]["loss"],
        },
        fit.tokens,
    )


def rows_of(chat: ChatFormat, shown: Sequence[Demonstration]) -> Iterator[TrainingDialogue]:
    """What the critic will be asked, without few-shots, and what it is to say, which is learned."""
    for demonstration in shown:
        for kind, messages, learned in _dialogues(demonstration):
            yield dialogue_row(chat, f"{demonstration.id}/{kind}", messages, learned)


def _dialogues(shown: Demonstration) -> Iterator[tuple[str, Dialogue, int]]:
    """Kind, turns, and how many of the assistant's last turns are learned.

    A choice is answered in both orders, so that no letter is likelier, and reasoned in one.
    """
    if isinstance(shown, RevisionDemonstration):
        asked = CritiquePrinciple("", "", (), shown.critique_request, shown.revision_request)
        before = revision_messages((), shown.messages, shown.response, asked, shown.critique)
        yield "revision", (*before, assistant(f"{REVISION_MARK} {shown.revision}")), 2
        return
    options, answer = (shown.option_a, shown.option_b), shown.answer
    other = "B" if answer == "A" else "A"
    ask = partial(choice_messages, (), shown.messages, shown.question)
    yield "choice", (*ask(*options), assistant(f"{ANSWER}{answer})")), 1
    yield "swapped", (*ask(*options[::-1]), assistant(f"{ANSWER}{other})")), 1
    thought = assistant(f"{thought_prefill(shown.reasoning)}{answer})")
    yield "reasoned", (*ask(*options), thought), 1


def _training(inputs: Inputs) -> Training:
    settings, models = inputs.config.warm_up, inputs.models
    source, lora = models.source(), lora_config(settings.lora)
    rows = abstract_batch((settings.batch_size, settings.sequence_length), jnp.int32, models.mesh)
    return Training(
        name="warm_up",
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
    return _training(inputs).programs(inputs.models.source())


def check(inputs: Inputs) -> None:
    """Refuses a file without demonstrations.

    Raises:
      ConfigError: it has none.
    """
    if not inputs.rows("demonstrations"):
        raise ConfigError("config.data.demonstrations: the file has no rows; name another")


STAGE = Stage(
    name="warm_up",
    needs=("pretrain",),
    blocks=("warm_up",),
    data={"demonstrations": Selection("demonstrations", "training")},
    execute=execute,
    programs=programs,
    check=check,
)
