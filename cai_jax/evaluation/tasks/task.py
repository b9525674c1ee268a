"""What a task is: it reads a file, and has methods that try a model on what stands there."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cai_jax.constitution.schema import Constitution
from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import ALL
from cai_jax.evaluation.evaluator import numbered
from cai_jax.evaluation.measure import Measure, Measurement
from cai_jax.evaluation.reply_class import ReplyJudge
from cai_jax.evaluation.statistics import bounded_mean, by_cluster
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import Dialogue

# A mean, its interval, and how many independent units it is of; None where there is no interval.
Values = tuple[float, float | None, float | None, int | None]


@dataclass(frozen=True)
class Asked:
    """A prompt that is replied to; ``row`` is where it stands."""

    id: str
    category: str
    messages: Dialogue
    row: JsonRow | None = None  # None: it is of no file


@dataclass(frozen=True)
class Answer:
    """A reply as it was sampled."""

    text: str  # what is judged; all of it where it does not parse
    usable: bool  # it parses
    finished: bool  # within the limit of tokens


# Scores of replies, any where one is None, since it does not parse.
Judge = Callable[[Sequence[Asked], Sequence[str | None]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """How a model under test is asked.

    Attributes:
      open_chat: gives its chat format; what is compiled does not depend on it.
      max_tokens: longest row, for the model and for its judge.
      window: tokens of plain text that are read at once.
      constitution: whose few-shots stand before questions; None: none do.
      few_shots: how many of them.
      sampling: how text is sampled.
      max_new_tokens: longest text.
      threshold: of the judge's score, below which a reply is harmful.
      seed: of the samples.
      open_judge_chat: likewise, of a model that classes replies; None: the model under test does.
    """

    open_chat: Callable[[], ChatFormat]
    max_tokens: int
    window: int
    constitution: Constitution | None
    few_shots: int
    sampling: Sampling
    max_new_tokens: int
    threshold: float
    seed: int
    open_judge_chat: Callable[[], ChatFormat] | None = None

    @cached_property
    def chat(self) -> ChatFormat:
        """The chat format, opened."""
        return self.open_chat()

    @cached_property
    def judge_chat(self) -> ChatFormat:
        """That of who classes replies."""
        return self.open_judge_chat() if self.open_judge_chat else self.chat


@dataclass(frozen=True)
class TaskTools:
    """The models of a task; abstract where only programs are asked for."""

    settings: TaskSettings
    scorer: Scorer  # of the model under test
    generator: Generator | None = None  # samples from it
    judge: Judge | None = None  # finds replies harmful, for methods that need it
    reply_judge: ReplyJudge | None = None  # classes replies, likewise
    # By a task's name and the ids of what is asked: methods share what was sampled.
    answers: dict[tuple[str, tuple[str, ...]], list[Answer]] = field(default_factory=dict)


@dataclass(frozen=True)
class Result:
    """What came of one item: a row of the command's answer.

    Items of one ``unit``, such as a prompt, are not independent.
    """

    id: str
    category: str
    unit: Hashable
    values: dict[str, Any]


@dataclass(frozen=True)
class Method:
    """A way to try a model.

    Attributes:
      kind: of model that it tries.
      run: a result an item.
      longest: tokens of an item's longest row.
      programs: what ``run`` compiles; names start with the given one.
      samples: whether text is sampled, which takes long.
      judge: kind of the model that judges what is sampled; empty: none does. A policy may judge
        itself.
    """

    kind: Literal["policy", "preference"]
    run: Callable[[Sequence[Any], TaskTools], list[Result]]
    longest: Callable[[Any, TaskSettings], int]
    programs: Callable[[TaskTools, str], list[Program]]
    samples: bool = False
    judge: Literal["", "preference", "policy"] = ""


@dataclass(frozen=True)
class Task:
    """A kind of benchmark.

    Attributes:
      read: the items of a file; they have ``category`` and ``row``, which says where one stands.
      methods: by name.
      measures: what results are summed up to.
      sum_up: values of the measures.
      chat: whether a model needs a chat template.
    """

    read: Callable[[Path], list[Any]]
    methods: Mapping[str, Method]
    measures: tuple[Measure, ...]
    sum_up: Callable[[Sequence[Result]], list[Values]]
    chat: bool = True

    def chosen(self, kind: str, named: Sequence[str] = ()) -> dict[str, Method]:
        """The methods that try a kind of model: those that are named, or that sample nothing.

        Where neither are there, it is the first.
        """
        fitting = {name: m for name, m in self.methods.items() if m.kind == kind}
        quick = [name for name, method in fitting.items() if not method.samples]
        names = [name for name in named if name in fitting] or quick or [*fitting][:1]
        return {name: fitting[name] for name in names}

    def measure(self, method: str, results: Sequence[Result]) -> list[Measurement]:
        """Measurements of a method: of all items, and of those of each category."""
        kinds = dict[str, list[Result]]()
        for result in results:
            if result.category:
                kinds.setdefault(result.category, []).append(result)
        return [
            Measurement(measure.name, method, group, len(found), *values)
            for group, found in [(ALL, results), *kinds.items()]
            for measure, values in zip(self.measures, self.sum_up(found), strict=True)
        ]


def check_lengths(items: Sequence[Any], method: Method, settings: TaskSettings) -> None:
    """Refuses items that the model has no room for.

    Raises:
      ValueError: there is one; the message names file and line.
    """
    for item in items:
        if (longest := method.longest(item, settings)) > settings.max_tokens:
            row: JsonRow = item.row
            raise row.error(
                f"{longest} tokens with what is asked, but the model was made for "
                f"{settings.max_tokens}; shorten the item"
            )


def shares(measures: Sequence[Measure], results: Sequence[Result]) -> list[Values]:
    """Means of values between 0 and 1, with Wilson intervals that know what is independent."""
    units = numbered([result.unit for result in results])
    found = list[Values]()
    for measure in measures:
        clusters = by_cluster([result.values[measure.name] for result in results], units)
        e = bounded_mean(clusters, 0.0, 1.0)
        found.append((e.mean, e.low, e.high, len(clusters.sums)))
    return found
