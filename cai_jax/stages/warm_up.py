"""A critic for small models: a low-rank adapter trained on written demonstrations of the form.

Large models learn critique, revision and choice from few-shots; small ones do not. The adapter
criticises, revises and gives feedback; the model without it answers, and the method changes that.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from cai_jax.constitution.schema import CritiquePrinciple
from cai_jax.data.readers import Demonstration, RevisionDemonstration
from cai_jax.data.records import Part, write_records
from cai_jax.data.rows import TrainingDialogue
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.critique_revision import REVISION_MARK, revision_messages
from cai_jax.prompts.feedback import ANSWER, choice_messages, thought_prefill
from cai_jax.prompts.messages import Dialogue, assistant
from cai_jax.stages.data import Selection
from cai_jax.stages.stage import Inputs, Outcome, Stage
from cai_jax.stages.training import check_lengths, dialogue_rows, finetune, finetuning


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Trains on the demonstrations and leaves a checkpoint."""
    settings, shown = inputs.config.warm_up, inputs.rows("demonstrations")
    rows = rows_of(inputs.models.chat, shown)
    check_lengths("warm_up", (len(row.tokens) for row in rows), settings.sequence_length)
    write_records(folder / "dialogues", rows, TrainingDialogue)
    fit = finetune(inputs, folder, settings, [Part(folder / "dialogues", 1.0)], "")
    counts = {"demonstrations": len(shown), "dialogues": len(rows)}
    return Outcome({**counts, **fit.metrics}, fit.tokens)


def rows_of(chat: ChatFormat, shown: Sequence[Demonstration]) -> list[TrainingDialogue]:
    """What the critic will be asked, without few-shots, and what it is to say, which is learned."""
    return dialogue_rows(
        chat,
        [
            (f"{demonstration.id}/{kind}", messages, learned)
            for demonstration in shown
            for kind, messages, learned in dialogues(demonstration)
        ],
    )


def dialogues(shown: Demonstration) -> Iterator[tuple[str, Dialogue, int]]:
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


def programs(inputs: Inputs) -> list[Program]:
    """The update, and what makes the state before it."""
    source = inputs.models.source()
    return finetuning(inputs, inputs.config.warm_up, source).programs(source)


STAGE = Stage(
    name="warm_up",
    needs=("pretrain",),
    blocks=("warm_up",),
    data={"demonstrations": Selection("demonstrations", "training")},
    execute=execute,
    programs=programs,
)
