"""How often the preference model ranks labelled pairs that it never saw as people do."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import Measure, Measurement

KINDS = ("harmlessness", "helpfulness")
ACCURACY = Measure(
    "accuracy", "share", "higher", "labelled pairs whose better response wins, ties as half"
)


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Shares of pairs; those of one prompt are one unit."""
    for group, reward in evidence.tools.reward.rewards.items():
        for kind in KINDS:
            pairs = evidence.pairs[kind]
            ids = reward.chat.prompts_ids([pair.messages for pair in pairs])
            replies = [pair.chosen for pair in pairs] + [pair.rejected for pair in pairs]
            chosen, rejected = reward([*ids, *ids], replies, "evaluate: pairs").reshape(2, -1)
            right, prompts = (np.sign(chosen - rejected) + 1) / 2, [p.messages for p in pairs]
            yield evidence.mean(ACCURACY, kind, group, right, prompts)


PREFERENCE_MODEL = Evaluator(
    "The preference model",
    lambda plan: KINDS,
    lambda plan: (replace(ACCURACY, groups=plan.groups),),
    evaluate,
    cases="labelled pairs; those of one prompt count as one unit",
    given="the preference model of this run and these labels",
)
