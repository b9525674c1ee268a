"""Who gains and who loses: the policies' replies by the preference model of every group."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations, product

import numpy as np

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import (
    DIFFERENCE,
    PROMPT_SETS,
    Evaluation,
    Measure,
    Measurement,
    Plan,
    number,
)
from cai_jax.evaluation.preference import subjects

DEVIATIONS = "standard deviations"
SCORE = Measure(
    "score",
    DEVIATIONS,
    "higher",
    "of all held-out prompts, by the group's preference model, in deviations of SL-CAI's samples",
)
SECOND = Measure(
    "second_score",
    DEVIATIONS,
    "higher",
    "by the group's other preference model, which RL did not climb",
)
WORST = Measure(
    "worst_off",
    DEVIATIONS,
    "higher",
    "score of the group that is lowest, by the models that RL did not climb if there are any; of a "
    "difference: of the group that gains least",
)
SPREAD = Measure(
    "spread", DEVIATIONS, "lower", "by how much the highest group's score is above it", low=0.0
)


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means over replies; intervals hold for the group that is lowest here, whichever that is."""
    groups = evidence.plan.groups
    if len(groups) < 2:
        return
    rows = {
        policy: [reply.row for reply in replies if reply.row.set in PROMPT_SETS]
        for policy, replies in evidence.replies.items()
    }
    prompts = [row.prompt for row in next(iter(rows.values()))]
    scores = {p: np.array([row.group_scores for row in rs]).T for p, rs in rows.items()}
    seconds = {p: np.array([row.group_second_scores for row in rs]).T for p, rs in rows.items()}
    by_judge = {SCORE: scores} | ({SECOND: seconds} if evidence.plan.second_model else {})
    for judge, given in by_judge.items():
        for at, group in enumerate(groups):
            for policy, values in given.items():
                yield evidence.mean(judge, policy, group, values[at], prompts)
            for other, one in combinations(given, 2):
                gained, name = given[one][at] - given[other][at], DIFFERENCE.format(one, other)
                yield evidence.difference(judge, name, group, gained, prompts)
    judged = seconds if evidence.plan.second_model else scores
    for policy, values in judged.items():
        lowest, highest = values[np.argsort(values.mean(axis=1))[[0, -1]]]
        yield evidence.mean(WORST, policy, "", lowest, prompts)
        yield evidence.mean(SPREAD, policy, "", highest - lowest, prompts)
    for other, one in combinations(judged, 2):
        gained = min(judged[one] - judged[other], key=np.mean)
        yield evidence.difference(WORST, DIFFERENCE.format(one, other), "", gained, prompts)


def measures(plan: Plan) -> tuple[Measure, ...]:
    """None where there is one constitution."""
    if len(plan.groups) < 2:
        return ()
    judges = (SCORE, *((SECOND,) if plan.second_model else ()))
    return (*(replace(judge, groups=plan.groups) for judge in judges), WORST, SPREAD)


def gains(evaluation: Evaluation) -> dict[str, str]:
    """What every group gains or loses, by difference of policies; empty without groups."""
    told: dict[str, list[str]] = {}
    for section in evaluation.sections:
        if section.name == "groups":
            *judges, _, _ = section.measures
            judge = judges[-1]  # the one that RL did not climb, where there is one
            for subject, group in product(section.subjects, judge.groups):
                m = evaluation.measurements[section.key(judge.name, subject, group)]
                if m.detectable is not None:  # a difference
                    told.setdefault(subject, []).append(f"{group} {_gain(judge, m)}")
    return {subject: "; ".join(lines) for subject, lines in told.items()}


def _gain(judge: Measure, m: Measurement) -> str:
    """A difference in words; one whose interval has 0 in it is neither gain nor loss."""
    if m.low is None or m.high is None:
        return f"by {number(judge, m.mean)}"
    verb = "gains" if m.low > 0 else "loses" if m.high < 0 else "stays within"
    size = "" if verb == "stays within" else f"{number(judge, abs(m.mean))} "
    return f"{verb} {size}[{number(judge, m.low)}, {number(judge, m.high)}]"


GROUPS = Evaluator(
    "Who gains and who loses",
    subjects,
    measures,
    evaluate,
    given="the models of this run; labels by each group's principles",
)
