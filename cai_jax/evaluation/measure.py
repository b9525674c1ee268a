"""What evaluation measures: what is declared before a run, and the numbers that it gave."""

from dataclasses import dataclass
from itertools import product
from typing import Literal

PROMPT_SETS = ("red_team", "helpful")  # of held-out prompts
TWIN_SETS = ("safe", "unsafe")  # sides of the twins, in one order


@dataclass(frozen=True)
class Measure:
    """A number; ``groups`` are what it is measured on, where there are several such things.

    A "share" is shown in percent; where ``better`` is empty, neither way is.
    """

    name: str
    unit: str
    better: Literal["higher", "lower", ""]
    description: str
    groups: tuple[str, ...] = ("",)


@dataclass(frozen=True)
class Measurement:
    """The mean of a measure over n cases, with its 95 % interval, where there is one."""

    measure: str
    subject: str
    group: str
    n: int
    mean: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Section:
    """What one evaluator measures in a run: every measure, of every subject, on its groups."""

    name: str
    title: str
    subjects: tuple[str, ...]
    measures: tuple[Measure, ...]

    def key(self, measure: str, subject: str, group: str) -> str:
        """NAME.MEASURE/SUBJECT, and /GROUP where there is one."""
        return "/".join(filter(None, (f"{self.name}.{measure}", subject, group)))

    def declared(self) -> list[str]:
        """Keys of all its measurements."""
        return [
            self.key(measure.name, subject, group)
            for measure in self.measures
            for subject, group in product(self.subjects, measure.groups)
        ]


@dataclass(frozen=True)
class Evaluation:
    """What was measured in a run."""

    sections: list[Section]
    measurements: dict[str, Measurement]  # by key


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run will have to evaluate, known before it starts."""

    policies: tuple[str, ...]  # the first is the base model
    rounds: int  # of revision
    oracle: tuple[Measure, ...]  # that the oracle gives; empty: there is none
    labeler: str
    metrics: tuple[str, ...]  # of RL, as its history names them
    twins: int  # pairs that are answered
    judged_replies: int  # of a policy to a set, that the feedback model classes
