"""Scores of the policies' replies by the preference model, and their differences in pairs."""

from collections.abc import Iterator
from itertools import combinations

import numpy as np

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement, Plan

SCORE = Measure(
    "score",
    "standard deviations",
    "higher",
    "by the preference model; 0 is the mean of SL-CAI's samples, 1 their standard deviation",
    ("all", *PROMPT_SETS),
)


def subjects(plan: Plan) -> tuple[str, ...]:
    """Policies, and the difference of each to those before it."""
    differences = (f"{one} minus {other}" for other, one in combinations(plan.policies, 2))
    return (*plan.policies, *differences)


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means with bootstrap intervals; every policy samples with the same random keys."""
    scores = {
        policy: np.array([reply.row.score for reply in replies], np.float32)
        for policy, replies in evidence.replies.items()
    }
    differences = {
        f"{one} minus {other}": scores[one] - scores[other]
        for other, one in combinations(scores, 2)
    }
    sets = [reply.row.set for reply in next(iter(evidence.replies.values()))]
    for subject, values in (scores | differences).items():
        for group in SCORE.groups:
            chosen = np.isin(sets, PROMPT_SETS if group == "all" else group)
            yield evidence.mean(SCORE, subject, group, values[chosen])


PREFERENCE = Evaluator("Score on held-out prompts", subjects, lambda plan: (SCORE,), evaluate)
