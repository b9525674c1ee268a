"""What an evaluator is: it declares measures, and takes them from a run's evidence."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cai_jax.constitution.schema import FeedbackPrinciple
from cai_jax.data.readers import ClassedReply, LabelledPair
from cai_jax.data.rows import Comparison, Revision, Sample, TrainingPair
from cai_jax.evaluation.measure import CASES, GIVEN, PROMPT_SETS, Measure, Measurement, Plan
from cai_jax.evaluation.reply_class import ReplyJudge
from cai_jax.evaluation.statistics import (
    bootstrap_mean,
    bounded_mean,
    by_cluster,
    detectable_difference,
    least_half_width,
)
from cai_jax.feedback.audit import Audit
from cai_jax.feedback.labeler import Labeler, LabelerTools
from cai_jax.generation.engine import Completion
from cai_jax.generation.scoring import Scorer
from cai_jax.parallel.program import Program
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import Objective
from cai_jax.rl.watch import Look

Oracle = Callable[[Dialogue, str], dict[str, float]]  # see evaluation/oracle.py


@dataclass(frozen=True)
class Reply:
    """What a policy said to one prompt."""

    row: Sample
    prompt_ids: list[int]
    completion: Completion  # its log-probs are those of the whole distribution
    usable: bool  # it parses; the row has all that was sampled where it does not


@dataclass(frozen=True)
class Judge:
    """Who compares replies, and how.

    Attributes:
      labeler: of feedback/registry.py.
      tools: what it is made of.
      principles: that it may compare under.
      per_pair: how many of them are drawn for a pair.
      margin: labels so near one half are ties.
    """

    labeler: type[Labeler]
    tools: LabelerTools
    principles: tuple[FeedbackPrinciple, ...]
    per_pair: int
    margin: float


@dataclass(frozen=True)
class Tools:
    """Models that evaluators may run; abstract where only programs are asked for."""

    reward: Objective
    second: Objective | None  # of a preference model that RL did not climb
    base: Scorer  # of the base model
    judge: Judge  # the feedback model
    other_judge: Judge | None  # that the config names
    temperature: float  # of sampling; 1 where the likeliest token is taken
    reply_judge: ReplyJudge | None  # the feedback model, where it is to class replies


@dataclass(frozen=True, kw_only=True)
class Intervals:
    """Means and differences with their intervals."""

    bootstrap_samples: int  # of each interval
    seed: int

    def mean(
        self,
        measure: Measure,
        subject: str,
        group: str,
        values: Sequence[float] | np.ndarray,
        units: Sequence[Hashable] | None = None,
    ) -> Measurement:
        """Mean of values, with the interval that the measure's bounds ask for.

        Args:
          measure: that the values are of.
          subject: that they are of.
          group: that they are on.
          values: at least one.
          units: what each value is of, such as its prompt: values of one stay together. None: all
            are independent.
        """
        found, (low, high) = by_cluster(values, numbered(units)), measure.bounds
        if low is not None and high is not None:
            e = bounded_mean(found, low, high)
        else:
            e = bootstrap_mean(found, self.bootstrap_samples, self.seed).within(low, high)
        k = len(found.sums)
        return Measurement(measure.name, subject, group, len(values), e.mean, e.low, e.high, k)

    def difference(
        self,
        measure: Measure,
        subject: str,
        group: str,
        values: Sequence[float] | np.ndarray,
        units: Sequence[Hashable] | None = None,
    ) -> Measurement:
        """Mean of paired differences of a measure; arguments as of ``mean``."""
        found, (low, high) = by_cluster(values, numbered(units)), measure.bounds
        e, k = bootstrap_mean(found, self.bootstrap_samples, self.seed), len(found.sums)
        least = 0.0
        if low is not None and high is not None:
            least = least_half_width(e.mean, high - low, k)
            e = e.at_least(least).within(low - high, high - low)
        interval = e.mean, e.low, e.high, k, detectable_difference(found, least)
        return Measurement(measure.name, subject, group, len(values), *interval)


@dataclass(frozen=True, kw_only=True)
class Evidence(Intervals):
    """All that a run gives its evaluators."""

    plan: Plan
    tools: Tools
    replies: Mapping[str, list[Reply]]  # by policy, to the same prompts in the same order
    revisions: list[Revision]  # all rounds, the first response included
    comparisons: Mapping[str, list[Comparison]]  # by group
    pairs: Mapping[str, list[LabelledPair]]  # held out, by what people labelled them for
    classed_replies: list[ClassedReply]  # that people classed
    audits: Mapping[str, Audit]  # of the labeler, by half of the labelled pairs and group
    history: list[dict[str, float]]  # of RL, a row a step
    looks: list[Look]  # of the second preference model, while RL ran
    oracle: Oracle | None
    attacks: Mapping[str, list[Reply]] = field(default_factory=dict)  # by policy: to an attacker
    benchmarks: Sequence[Measurement] = ()  # of evaluation/tasks/, as they were measured
    labels: str = "soft"  # of comparisons, as the preference model learned from them
    helpfulness: Sequence[TrainingPair] = ()  # that it learned from beside them

    def by_set(self) -> Iterator[tuple[str, str, list[Reply]]]:
        """Policies, sets of held-out prompts, and the replies of the one to the other."""
        for policy, replies in self.replies.items():
            for group in PROMPT_SETS:
                yield policy, group, [reply for reply in replies if reply.row.set == group]


@dataclass(frozen=True)
class Evaluator:
    """One way to evaluate a run.

    Attributes:
      title: of its section in the report.
      subjects: what it measures, such as policies.
      measures: that it gives of each of them; none: it is left out of this run.
      cases: what the n of its measurements counts.
      given: what its numbers are conditional on.
      warning: what a reader must know before anything else; empty: nothing.
      evaluate: gives them; where there are no cases, a measurement is missing.
      programs: what it compiles, known from abstract models. Those of the reward are listed by the
        stage, which scores all replies.
    """

    title: str
    subjects: Callable[[Plan], tuple[str, ...]]
    measures: Callable[[Plan], tuple[Measure, ...]]
    evaluate: Callable[[Evidence], Iterable[Measurement]]
    programs: Callable[[Tools], list[Program]] = lambda tools: []
    cases: str = CASES
    given: str = GIVEN
    warning: Callable[[Plan], str] = lambda plan: ""


def numbered(units: Sequence[Hashable] | None) -> list[int] | None:
    """The same units, by numbers."""
    numbers: dict[Hashable, int] = {}
    return None if units is None else [numbers.setdefault(unit, len(numbers)) for unit in units]


def policies(plan: Plan) -> tuple[str, ...]:
    """The subjects of most evaluators."""
    return plan.policies
