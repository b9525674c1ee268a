"""Where RL began and ended, by its own metrics of one batch each."""

from collections.abc import Iterator

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import Measure, Measurement, Plan

# Metrics that algorithms show; others have no unit.
KNOWN = {
    "score": Measure("score", "standard deviations", "higher", "of samples"),
    "kl_k3": Measure("kl_k3", "nats a response", "", "KL divergence (k3) to SL-CAI", low=0.0),
    "loss": Measure("loss", "", "lower", "of the update"),
    "agreement": Measure("agreement", "share", "higher", "pairs ranked as they are labelled"),
}
ENDS = {"first": 0, "last": -1}  # rows of the history


def measures(plan: Plan) -> tuple[Measure, ...]:
    """The metrics that the algorithm shows."""
    return tuple(KNOWN.get(name, Measure(name, "", "", "")) for name in plan.metrics)


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Plain values, without intervals."""
    names = evidence.plan.metrics
    rows = [row for row in evidence.history if row.keys() >= set(names)]  # of steps that were done
    for subject, at in ENDS.items():
        for name in names:
            yield Measurement(name, subject, "", 1, rows[at][name])


HISTORY = Evaluator(
    "Reinforcement learning",
    lambda plan: tuple(ENDS),
    measures,
    evaluate,
    cases="batches",
    given="the prompts of that batch, which training has seen",
)
