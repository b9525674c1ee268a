"""What evaluation measures: what is declared before a run, and the numbers that it gave."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Literal, Protocol

PROMPT_SETS = ("red_team", "helpful")  # of held-out prompts
TWIN_SETS = ("safe", "unsafe")  # sides of the twins, in one order
DIFFERENCE = "{} minus {}"  # subjects of measurements that are differences
CASES = "replies to held-out prompts; those to one prompt count as one unit"
GIVEN = "the models of this run: another seed trains others"


@dataclass(frozen=True)
class Measure:
    """A number; ``groups`` are what it is measured on, where there are several such things.

    A "share" is shown in percent; where ``better`` is empty, neither way is. Its interval follows
    from its bounds: ``low`` and ``high``, None where there are none.
    """

    name: str
    unit: str
    better: Literal["higher", "lower", ""]
    description: str
    groups: tuple[str, ...] = ("",)
    low: float | None = None  # a share's are 0 and 1
    high: float | None = None

    @property
    def bounds(self) -> tuple[float | None, float | None]:
        """What a value is never below, and never above."""
        if self.unit == "share" and self.low is None:
            return 0.0, 1.0
        return self.low, self.high

    def of(self, subject: str) -> "Measure":
        """The same of a subject: differences have other bounds."""
        low, high = self.bounds
        if DIFFERENCE.format("", "") not in subject:
            return self
        most = None if low is None or high is None else high - low
        return replace(self, low=None if most is None else -most, high=most)


@dataclass(frozen=True)
class Measurement:
    """The mean of a measure over n cases, with its 95 % interval, where there is one.

    Attributes:
      units: of the cases that are independent, such as prompts; None: it has no interval.
      detectable: the true difference that would have shown with 80 % power; of a win rate, its
        distance from one half.

    Raises:
      ValueError: the mean is not within its interval.
    """

    measure: str
    subject: str
    group: str
    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    units: int | None = None
    detectable: float | None = None

    def __post_init__(self) -> None:
        low, high = (self.mean if end is None else end for end in (self.low, self.high))
        slack = 1e-9 * max(1.0, abs(self.mean))  # of rounding
        if not low - slack <= self.mean <= high + slack:
            raise ValueError(
                f"{self.measure} of {self.subject}: a mean of {self.mean:.6g} is not within its "
                f"interval, {low:.6g} to {high:.6g}; correct the bounds of the measure"
            )

    def told(self, measure: Measure) -> str:
        """The mean in its unit, its interval, and how many cases and units it is of."""
        unit = "%" if measure.unit == "share" else measure.unit
        of = f"n = {self.n}" + (f" of {self.units} units" if self.units else "")
        mean = with_interval(self, partial(number, measure))
        text = f"{mean} {unit}".rstrip() + f", {of}"
        if self.detectable is None:
            return text
        what = "difference" if self._is_difference else measure.name.replace("_", " ")
        return f"{text}; a true {what} of {self.detects(measure)} would have shown with 80 % power"

    def detects(self, measure: Measure) -> str:
        """What is detectable, as people read it."""
        seen = "" if self.detectable is None else number(measure, self.detectable)
        return seen if self._is_difference else f"{number(measure, 0.5)} ± {seen} %"

    @property
    def _is_difference(self) -> bool:
        return DIFFERENCE.format("", "") in self.subject


def number(measure: Measure, value: float) -> str:
    """A value as people read it: shares in percent."""
    return f"{100 * value:.0f}" if measure.unit == "share" else f"{value:.2f}"


class Ranged(Protocol):
    """A mean, and the ends of its interval; None where there is none."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float | None: ...
    @property
    def high(self) -> float | None: ...


def with_interval(found: Ranged, told: Callable[[float], str], unit: str = "") -> str:
    """A mean, its unit, and its interval, where there is one; ``told`` writes the numbers."""
    text = told(found.mean) + unit
    if found.low is None or found.high is None:
        return text
    return f"{text} [{told(found.low)}, {told(found.high)}]"


def joined(*parts: str) -> str:
    """A key of its parts that are not empty."""
    return "/".join(filter(None, parts))


@dataclass(frozen=True)
class Section:
    """What one evaluator measures in a run: every measure, of every subject, on its groups.

    Attributes:
      cases: what n counts.
      given: what the numbers are conditional on.
      warning: what a reader must know before anything else; empty: nothing.
    """

    name: str
    title: str
    subjects: tuple[str, ...]
    measures: tuple[Measure, ...]
    cases: str = CASES
    given: str = GIVEN
    warning: str = ""

    def key(self, measure: str, subject: str, group: str) -> str:
        """NAME.MEASURE/SUBJECT, and /GROUP where there is one."""
        return joined(f"{self.name}.{measure}", subject, group)

    def declared(self) -> dict[str, Measure]:
        """What all its measurements are of, by their keys."""
        return {
            self.key(measure.name, subject, group): measure.of(subject)
            for measure in self.measures
            for subject, group in product(self.subjects, measure.groups)
        }


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
    second_model: bool  # whether there is a preference model that RL did not climb
    oracle: tuple[Measure, ...]  # that the oracle gives; empty: there is none
    labeler: str
    other_judge: bool = False  # of win rates, beside the feedback model
    judge_is_feedback: bool = False  # that other judge
    metrics: tuple[str, ...]  # of RL, as its history names them
    looks: tuple[int, ...]  # iterations of RL after which the second model looks; 0: before any
    twins: int  # pairs that are answered
    judged_replies: int  # of a policy to a set, that the feedback model classes
    groups: tuple[str, ...] = ("",)  # whose constitutions label; one without a name is the run's
    attacks: tuple[str, ...] = ()  # strategies of the held-out attacker; empty: there is none
    threshold: float = 0.0  # of a score over a refusal's, below which a reply is harmful
    benchmarks: tuple[Measure, ...] = ()  # of policies
    judge_benchmarks: tuple[Measure, ...] = ()  # of the preference model
    critique_principles: tuple[str, ...] = ()  # that may be drawn, by id
    feedback_principles: tuple[str, ...] = ()  # likewise
