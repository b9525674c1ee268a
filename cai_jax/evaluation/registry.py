"""The evaluators, by the names that keys of measurements start with, in the report's order.

A new one is a file and an entry.
"""

from cai_jax.evaluation.attacks import HELD_OUT_ATTACKS
from cai_jax.evaluation.benchmarks import BENCHMARKS, JUDGE_BENCHMARKS
from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.evasiveness import EVASIVENESS
from cai_jax.evaluation.groups import GROUPS
from cai_jax.evaluation.history import HISTORY
from cai_jax.evaluation.kl import KL
from cai_jax.evaluation.labels import LABELS
from cai_jax.evaluation.measure import Evaluation, Plan, Section
from cai_jax.evaluation.oracle import ORACLE
from cai_jax.evaluation.over_optimisation import OVER_OPTIMISATION
from cai_jax.evaluation.preference import PREFERENCE
from cai_jax.evaluation.preference_model import PREFERENCE_MODEL
from cai_jax.evaluation.principles import FEEDBACK_PRINCIPLES, REVISION_PRINCIPLES
from cai_jax.evaluation.reply_audit import REPLY_AUDIT
from cai_jax.evaluation.revisions import REVISIONS
from cai_jax.evaluation.text import TEXT
from cai_jax.evaluation.twins import TWINS
from cai_jax.evaluation.win_rate import JUDGE_WIN_RATES, WIN_RATES

EVALUATORS: dict[str, Evaluator] = {
    "preference": PREFERENCE,
    "groups": GROUPS,
    "win_rate": WIN_RATES,
    "judge_win_rate": JUDGE_WIN_RATES,
    "kl": KL,
    "text": TEXT,
    "evasiveness": EVASIVENESS,
    "twins": TWINS,
    "attacks": HELD_OUT_ATTACKS,
    "reply_class": REPLY_AUDIT,
    "oracle": ORACLE,
    "revisions": REVISIONS,
    "revision_principles": REVISION_PRINCIPLES,
    "labels": LABELS,
    "preference_model": PREFERENCE_MODEL,
    "feedback_principles": FEEDBACK_PRINCIPLES,
    "over_optimisation": OVER_OPTIMISATION,
    "benchmarks": BENCHMARKS,
    "judge_benchmarks": JUDGE_BENCHMARKS,
    "rl": HISTORY,
}


def sections(plan: Plan) -> list[Section]:
    """What every evaluator will measure; those that have nothing to are left out."""
    found = (
        Section(
            name, e.title, e.subjects(plan), e.measures(plan), e.cases, e.given, e.warning(plan)
        )
        for name, e in EVALUATORS.items()
    )
    return [section for section in found if section.measures]


def declared_keys(plan: Plan) -> list[str]:
    """Keys of all measurements that a run can have."""
    return [key for section in sections(plan) for key in section.declared()]


def evaluate_all(evidence: Evidence) -> Evaluation:
    """All measurements of a run.

    Raises:
      ValueError: an evaluator measured what it did not declare.
    """
    found = {
        section.key(m.measure, m.subject, m.group): m
        for section in sections(evidence.plan)
        for m in EVALUATORS[section.name].evaluate(evidence)
    }
    if odd := set(found) - set(declared_keys(evidence.plan)):
        raise ValueError(f"evaluation: {min(odd)} is measured, but not declared by its evaluator")
    return Evaluation(sections(evidence.plan), found)
