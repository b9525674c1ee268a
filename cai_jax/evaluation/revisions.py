"""What critique and revision change, round by round, on prompts of training."""

from collections.abc import Iterator
from dataclasses import replace

from cai_jax.data.rows import Revision
from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import Measure, Measurement, Plan
from cai_jax.evaluation.oracle import values_by_measure
from cai_jax.evaluation.preference import SCORE


def subjects(plan: Plan) -> tuple[str, ...]:
    """The rounds; 0 is the first response."""
    return tuple(f"revision {number}" for number in range(plan.rounds + 1))


def measures(plan: Plan) -> tuple[Measure, ...]:
    """The score, and what the oracle measures on red-team prompts."""
    by_oracle = (measure for measure in plan.oracle if "red_team" in measure.groups)
    return tuple(replace(measure, groups=("",)) for measure in (SCORE, *by_oracle))


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means over the prompts that all rounds have."""
    steps, reward = complete(evidence.revisions), evidence.tools.reward
    ids = reward.chat.prompts_ids([row.prompt for row in steps])
    scores = reward(ids, [row.response for row in steps], "evaluate: rounds")
    for number in sorted({row.round for row in steps}):
        rows = [i for i, row in enumerate(steps) if row.round == number]
        values = {SCORE.name: dict(enumerate(scores[rows].tolist()))}
        if evidence.oracle:
            said = [(steps[i].prompt, steps[i].response) for i in rows]
            values |= values_by_measure(evidence.oracle, said)
        for measure in measures(evidence.plan):
            if found := values[measure.name]:
                prompts = [steps[rows[i]].prompt for i in found]
                subject = f"revision {number}"
                yield evidence.mean(measure, subject, "", list(found.values()), prompts)


def complete(steps: list[Revision]) -> list[Revision]:
    """The steps of the prompts that have every round that any prompt has."""
    rounds: dict[int, set[str]] = {}
    for row in steps:
        rounds.setdefault(row.round, set()).add(row.prompt_id)
    whole = set.intersection(*rounds.values())
    return [row for row in steps if row.prompt_id in whole]


REVISIONS = Evaluator(
    "Revision by revision",
    subjects,
    measures,
    evaluate,
    cases="prompts of training whose every revision parses, a sample where there are many",
    given="the base model and the preference model of this run",
)
