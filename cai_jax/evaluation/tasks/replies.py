"""What a model replies to prompts, and of which class its replies are: for tasks that sample them.

A reply that does not parse is classed by all that was sampled, as the evaluation of a run does.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from cai_jax.data.readers import category_of, read_prompt, read_rows, unique
from cai_jax.evaluation.evasiveness import MODEL, RULE
from cai_jax.evaluation.measure import Measure
from cai_jax.evaluation.reply_class import ReplyJudge, class_by_rule, reading
from cai_jax.evaluation.tasks.task import Answer, Asked, Method, Result, TaskSettings, TaskTools
from cai_jax.generation.engine import Generator
from cai_jax.keys import named_key
from cai_jax.parallel.program import Program
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import usable

UNUSABLE = Measure("unusable", "share", "lower", "replies that do not parse, and are classed whole")
FINISHED = Measure("finished", "share", "higher", "replies that end within the limit of tokens")
Said = Sequence[tuple[Dialogue, str]]  # prompts with their replies
Reader = Callable[[TaskTools, Said], list[str]]


@dataclass(frozen=True)
class Classed:
    """A reply, and which of REPLY_CLASSES it is."""

    answer: Answer
    label: str


def read_asked(path: Path) -> list[Asked]:
    """Prompts in any of PROMPT_FORMATS; see ``read_rows`` for the files."""
    rows = read_rows(path)
    found = [Asked(row.id, category_of(row), read_prompt(row).messages, row) for row in rows]
    return unique(path, found, "prompts")


def longest(item: Asked, settings: TaskSettings) -> int:
    """Tokens of a prompt and of the longest reply."""
    return len(settings.chat.prompt_ids(item.messages)) + settings.max_new_tokens


def programs(tools: TaskTools, title: str) -> list[Program]:
    """What sampling replies compiles."""
    new, sampling = tools.settings.max_new_tokens, tools.settings.sampling
    return generator_of(tools).programs(f"{title}: replies", new, sampling)


def generator_of(tools: TaskTools) -> Generator:
    """What samples from the model under test.

    Raises:
      ValueError: there is nothing.
    """
    if tools.generator is None:
        raise ValueError("a task that samples replies needs a generator")
    return tools.generator


def answers(
    items: Sequence[Asked], generator: Generator, settings: TaskSettings, name: str
) -> list[Answer]:
    """A reply to each prompt; its key derives from the task's name and the prompt's id."""
    chat = settings.chat
    samples = generator.generate(
        chat.prompts_ids([item.messages for item in items]),
        [named_key(settings.seed, name, item.id) for item in items],
        settings.max_new_tokens,
        settings.sampling,
        name.replace("_", " "),
    )
    parsed = [usable(chat, sample) for sample in samples]
    return [
        Answer(reply.text if reply else chat.text(sample.ids), reply is not None, sample.finished)
        for sample, reply in zip(samples, parsed, strict=True)
    ]


def by_class(
    name: str,
    asked: Callable[[Any], Sequence[Asked]],
    result: Callable[[Any, Sequence[Classed]], Result],
) -> dict[str, Method]:
    """Methods that class a model's replies: by a rule on words, and by a model that reads them.

    Args:
      name: of the task.
      asked: the prompts of an item.
      result: of an item, by its replies.
    """

    def run(read: Reader, items: Sequence[Any], tools: TaskTools) -> list[Result]:
        prompts = [one for item in items for one in asked(item)]
        found = _shared_answers(prompts, tools, name)
        said = [(one.messages, a.text) for one, a in zip(prompts, found, strict=True)]
        classed = map(Classed, found, read(tools, said))
        return [result(item, [next(classed) for _ in asked(item)]) for item in items]

    return {
        RULE: Method(
            kind="policy",
            run=partial(run, _by_rule),
            longest=lambda item, settings: max(longest(one, settings) for one in asked(item)),
            programs=programs,
            samples=True,
        ),
        MODEL: Method(
            kind="policy",
            run=partial(run, _by_model),
            longest=lambda item, settings: max(_longest_read(one, settings) for one in asked(item)),
            programs=lambda tools, title: [*programs(tools, title), *_reading_programs(tools)],
            samples=True,
            judge="policy",
        ),
    }


def _shared_answers(items: Sequence[Asked], tools: TaskTools, name: str) -> list[Answer]:
    """Those of the model under test, which the methods of a task share."""
    key = name, tuple(item.id for item in items)
    if key not in tools.answers:
        tools.answers[key] = answers(items, generator_of(tools), tools.settings, name)
    return tools.answers[key]


def _by_rule(tools: TaskTools, said: Said) -> list[str]:
    return [class_by_rule(reply) for _, reply in said]


def _by_model(tools: TaskTools, said: Said) -> list[str]:
    return _reader(tools).classes(said)


def _longest_read(item: Asked, settings: TaskSettings) -> int:
    """Tokens of the question which class the longest reply is of, where that is more."""
    chat = settings.judge_chat
    question = reading(item.messages, chat.filler(settings.max_new_tokens))
    asked = len(chat.prompt_ids(question.messages, question.prefill))
    return max(longest(item, settings), asked)


def _reader(tools: TaskTools) -> ReplyJudge:
    if tools.reply_judge is None:
        raise ValueError("a model that classes replies is wanted")
    return tools.reply_judge


def _reading_programs(tools: TaskTools) -> list[Program]:
    """The model under test is there while its replies are read."""
    under_test = tools.scorer.abstract_params
    return [replace(p, resident=(*p.resident, under_test)) for p in _reader(tools).programs()]
