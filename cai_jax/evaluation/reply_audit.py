"""Can the classes of replies be trusted? Their readers against replies that people classed."""

from collections.abc import Iterator

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.evasiveness import MODEL, RULE, readers, share
from cai_jax.evaluation.measure import Measure, Measurement
from cai_jax.evaluation.reply_class import CLASSES, class_by_rule

MEASURES = (
    Measure("accuracy", "share", "higher", "replies that are classed as people did"),
    *(Measure(f"recall_{name}", "share", "higher", "of the class") for name in CLASSES),
)


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Shares with Wilson intervals."""
    rows = evidence.classed_replies
    found = {RULE: [class_by_rule(row.reply) for row in rows]}
    if judge := evidence.tools.judge:
        found[MODEL] = judge.classes([(row.messages, row.reply) for row in rows])
    for reader, classes in found.items():
        right = [c == row.label for c, row in zip(classes, rows, strict=True)]
        yield share("accuracy", reader, "", right)
        for name in CLASSES:
            of_class = [hit for hit, row in zip(right, rows, strict=True) if row.label == name]
            if of_class:
                yield share(f"recall_{name}", reader, "", of_class)


REPLY_AUDIT = Evaluator("Can the classes be trusted?", readers, lambda plan: MEASURES, evaluate)
