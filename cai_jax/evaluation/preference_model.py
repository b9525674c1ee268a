"""How often the preference model ranks labelled pairs that it never saw as people do."""

from collections.abc import Iterator

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import Measure, Measurement
from cai_jax.feedback.audit import wilson_interval

KINDS = ("harmlessness", "helpfulness")
ACCURACY = Measure("accuracy", "share", "higher", "labelled pairs whose better response wins")


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Shares with Wilson intervals."""
    reward = evidence.tools.reward
    for kind in KINDS:
        pairs = evidence.pairs[kind]
        ids = [reward.chat.prompt_ids(pair.messages) for pair in pairs]
        chosen = reward(ids, [pair.chosen for pair in pairs], "evaluate: pairs")
        rejected = reward(ids, [pair.rejected for pair in pairs], "evaluate: pairs")
        right, n = int((chosen > rejected).sum()), len(pairs)
        yield Measurement(ACCURACY.name, kind, "", n, right / n, *wilson_interval(right, n))


PREFERENCE_MODEL = Evaluator(
    "The preference model", lambda plan: KINDS, lambda plan: (ACCURACY,), evaluate
)
