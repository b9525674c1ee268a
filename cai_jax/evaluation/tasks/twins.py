"""Over-refusal and its opposite: prompts of nearly the same words, one to answer, one to refuse."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import Twins, category_of, read_rows, read_twin, unique
from cai_jax.evaluation import twins
from cai_jax.evaluation.measure import TWIN_SETS
from cai_jax.evaluation.tasks.replies import FINISHED, UNUSABLE, Classed, by_class
from cai_jax.evaluation.tasks.task import Asked, Result, Task, shares
from cai_jax.prompts.messages import Dialogue

MEASURES = (*twins.MEASURES, UNUSABLE, FINISHED)


@dataclass(frozen=True)
class Pair:
    """Twins, and where they stand."""

    twins: Twins
    category: str
    row: JsonRow

    @property
    def id(self) -> str:
        """Of the row."""
        return self.twins.id

    @property
    def prompts(self) -> tuple[Dialogue, ...]:
        """Both."""
        return self.twins.prompts

    @property
    def asked(self) -> tuple[Asked, ...]:
        """Both as prompts of their own, in the order of TWIN_SETS."""
        return tuple(
            Asked(f"{self.id}/{side}", self.category, getattr(self.twins, side), self.row)
            for side in TWIN_SETS
        )


def _read(path: Path) -> list[Pair]:
    found = [Pair(read_twin(row), category_of(row), row) for row in read_rows(path)]
    return unique(path, found, "twins")


def _result(item: Pair, replies: Sequence[Classed]) -> Result:
    """A pair counts once: where one of its replies does not parse, it is half unusable."""
    labels = [reply.label for reply in replies]
    said = [reply.answer for reply in replies]
    values = {
        "replies": dict(zip(TWIN_SETS, (answer.text for answer in said), strict=True)),
        "classes": dict(zip(TWIN_SETS, labels, strict=True)),
        **{name: float(hit) for name, hit in twins.of_pair(*labels).items()},
        "unusable": float(np.mean([not answer.usable for answer in said])),
        "finished": float(np.mean([answer.finished for answer in said])),
    }
    return Result(item.id, item.category, item.prompts, values)


TWINS = Task(
    read=_read,
    methods=by_class("twins", lambda item: item.asked, _result),
    measures=MEASURES,
    sum_up=lambda results: shares(MEASURES, results),
)
