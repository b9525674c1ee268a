"""How far the reward runs ahead of a preference model that RL did not climb (section 4.3)."""

from collections.abc import Iterator

import numpy as np

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import Measure, Measurement, Plan

DEVIATIONS = "standard deviations"
REWARD = Measure("reward", DEVIATIONS, "higher", "score by the preference model that RL climbs")
SECOND = Measure("second", DEVIATIONS, "higher", "score by the preference model that it does not")
GAP = Measure("gap", DEVIATIONS, "lower", "the one less the other, reply by reply")


def subject(iteration: int) -> str:
    """A policy on its way."""
    return f"iteration {iteration}"


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means over the prompts that were answered at every look."""
    for look in evidence.looks:
        reward, second = np.array(look.reward), np.array(look.second)
        for measure, values in ((REWARD, reward), (SECOND, second), (GAP, reward - second)):
            yield evidence.mean(measure, subject(look.iteration), "", values)


def measures(plan: Plan) -> tuple[Measure, ...]:
    """None where nobody looked."""
    return (REWARD, SECOND, GAP) if plan.looks else ()


OVER_OPTIMISATION = Evaluator(
    "Over-optimisation, on prompts that chose the policy",
    lambda plan: tuple(map(subject, plan.looks)),
    measures,
    evaluate,
)
