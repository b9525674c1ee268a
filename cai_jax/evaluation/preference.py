"""Scores of the policies' replies by the preference model, and their differences in pairs.

A reply that does not parse has a fixed score, so a policy can gain by parsing more often alone.
Scores of all replies, of usable ones alone, and the share that is usable stand side by side.
"""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import (
    CASES,
    DIFFERENCE,
    PROMPT_SETS,
    Evaluation,
    Measure,
    Measurement,
    Plan,
)

GROUPS = ("all", *PROMPT_SETS)
SCORE = Measure(
    "score",
    "standard deviations",
    "higher",
    "by the preference model; 0 is the mean of SL-CAI's samples, 1 their standard deviation",
    GROUPS,
)
SECOND_SCORE = Measure(
    "second_score",
    "standard deviations",
    "higher",
    "by the preference model of other prompts and another seed, which RL did not climb",
    GROUPS,
)
USABLE_SCORE = Measure(
    "usable_score",
    "standard deviations",
    "higher",
    "the same of the replies that parse; a difference is over the pairs of which both do",
    GROUPS,
)
USABLE = Measure("usable", "share", "higher", "replies that parse", GROUPS)


def subjects(plan: Plan) -> tuple[str, ...]:
    """Policies, and the difference of each to those before it."""
    pairs = combinations(plan.policies, 2)
    return (*plan.policies, *(DIFFERENCE.format(one, other) for other, one in pairs))


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means over replies; every policy samples with the same random keys."""
    rows = [reply.row for reply in next(iter(evidence.replies.values()))]
    prompts = [row.prompt for row in rows]
    scores = {p: np.array([r.row.score for r in rs]) for p, rs in evidence.replies.items()}
    seconds = {p: np.array([r.row.second_score for r in rs]) for p, rs in evidence.replies.items()}
    by_judge = {SCORE: scores} | ({SECOND_SCORE: seconds} if evidence.plan.second_model else {})
    usable = {p: np.array([r.usable for r in rs], float) for p, rs in evidence.replies.items()}
    for group in GROUPS:
        inside = np.isin([row.set for row in rows], PROMPT_SETS if group == "all" else group)

        def taken(values: np.ndarray, kept: np.ndarray, group: str = group) -> tuple:
            return group, values[kept], [prompts[i] for i in np.flatnonzero(kept)]

        for policy in scores:
            for judge, given in by_judge.items():
                yield evidence.mean(judge, policy, *taken(given[policy], inside))
            yield evidence.mean(USABLE, policy, *taken(usable[policy], inside))
            if (kept := inside & (usable[policy] > 0)).any():
                yield evidence.mean(USABLE_SCORE, policy, *taken(scores[policy], kept))
        for other, one in combinations(scores, 2):
            name, gained = DIFFERENCE.format(one, other), scores[one] - scores[other]
            for judge, given in by_judge.items():
                gain = given[one] - given[other]
                yield evidence.difference(judge, name, *taken(gain, inside))
            yield evidence.difference(USABLE, name, *taken(usable[one] - usable[other], inside))
            if (kept := inside & (usable[one] * usable[other] > 0)).any():
                yield evidence.difference(USABLE_SCORE, name, *taken(gained, kept))


def headline_score(evaluation: Evaluation) -> Measure:
    """The score that is told first: by the model that RL did not climb, where there is one."""
    (section,) = [s for s in evaluation.sections if s.name == "preference"]
    return SECOND_SCORE if SECOND_SCORE in section.measures else SCORE


def headline(evaluation: Evaluation) -> dict[str, str]:
    """What is told first: differences of that score over all held-out prompts, by subject."""
    judge = headline_score(evaluation)
    start = f"preference.{judge.name}/"
    found = (m for key, m in evaluation.measurements.items() if key.startswith(start))
    return {
        m.subject: m.told(judge) for m in found if m.group == "all" and m.detectable is not None
    }


def warning(plan: Plan) -> str:
    """Told where nothing but what RL climbed scores its replies."""
    if plan.second_model:
        return ""
    return (
        "RL climbs the preference model that scores here: what it gains is no evidence. Set "
        "config.second_model.prompts above 0 for one that it does not know."
    )


def measures(plan: Plan) -> tuple[Measure, ...]:
    """By the second preference model only where there is one."""
    return (SCORE, *((SECOND_SCORE,) if plan.second_model else ()), USABLE_SCORE, USABLE)


PREFERENCE = Evaluator(
    "Score on held-out prompts",
    subjects,
    measures,
    evaluate,
    cases=CASES,
    given="the models of this run, and its preference models: RL climbs the first",
    warning=warning,
)
