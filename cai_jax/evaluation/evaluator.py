"""What an evaluator is: it declares measures, and takes them from a run's evidence."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cai_jax.data.readers import ClassedReply, LabelledPair
from cai_jax.data.rows import Comparison, Revision, Sample
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement, Plan
from cai_jax.evaluation.reply_class import ReplyJudge
from cai_jax.evaluation.statistics import bootstrap_mean
from cai_jax.feedback.audit import Audit
from cai_jax.generation.engine import Completion
from cai_jax.generation.scoring import Scorer
from cai_jax.parallel.program import Program
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import Reward

Oracle = Callable[[Dialogue, str], dict[str, float]]  # see evaluation/oracle.py


@dataclass(frozen=True)
class Reply:
    """What a policy said to one prompt."""

    row: Sample
    prompt_ids: list[int]
    completion: Completion  # its log-probs are those of the whole distribution
    usable: bool  # it parses; the row has all that was sampled where it does not


@dataclass(frozen=True)
class Tools:
    """Models that evaluators may run; abstract where only programs are asked for."""

    reward: Reward
    base: Scorer  # of the base model
    temperature: float  # of sampling; 1 where the likeliest token is taken
    judge: ReplyJudge | None  # the feedback model, where it is to class replies


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """All that a run gives its evaluators."""

    plan: Plan
    tools: Tools
    replies: Mapping[str, list[Reply]]  # by policy, to the same prompts in the same order
    revisions: list[Revision]  # all rounds, the first response included
    comparisons: list[Comparison]
    pairs: Mapping[str, list[LabelledPair]]  # held out, by what people labelled them for
    classed_replies: list[ClassedReply]  # that people classed
    audits: Mapping[str, Audit]  # of the labeler, by half of the labelled pairs
    history: list[dict[str, float]]  # of RL, a row a step
    oracle: Oracle | None
    bootstrap_samples: int  # of each interval
    seed: int

    def mean(
        self, measure: Measure, subject: str, group: str, values: Sequence[float] | np.ndarray
    ) -> Measurement:
        """Mean of independent values, with its bootstrap interval."""
        e = bootstrap_mean(np.asarray(values), self.bootstrap_samples, self.seed)
        return Measurement(measure.name, subject, group, len(values), e.mean, e.low, e.high)

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
      evaluate: gives them; where there are no cases, a measurement is missing.
      programs: what it compiles, known from abstract models. Those of the reward are listed by the
        stage, which scores all replies.
    """

    title: str
    subjects: Callable[[Plan], tuple[str, ...]]
    measures: Callable[[Plan], tuple[Measure, ...]]
    evaluate: Callable[[Evidence], Iterable[Measurement]]
    programs: Callable[[Tools], list[Program]] = lambda tools: []


def policies(plan: Plan) -> tuple[str, ...]:
    """The subjects of most evaluators."""
    return plan.policies
