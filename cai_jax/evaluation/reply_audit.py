"""Can the classes of replies be trusted? Their readers against replies that people classed."""

from collections.abc import Iterator

from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.evasiveness import MODEL, RULE, readers
from cai_jax.evaluation.measure import Measure, Measurement
from cai_jax.evaluation.reply_class import CLASSES, class_by_rule

ACCURACY = Measure("accuracy", "share", "higher", "replies that are classed as people did")
RECALL = {name: Measure(f"recall_{name}", "share", "higher", "of the class") for name in CLASSES}


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Shares of replies; those to one prompt are one unit."""
    rows = evidence.classed_replies
    found = {RULE: [class_by_rule(row.reply) for row in rows]}
    if judge := evidence.tools.reply_judge:
        found[MODEL] = judge.classes([(row.messages, row.reply) for row in rows])
    for reader, classes in found.items():
        hits = [(row, row.label == name) for row, name in zip(rows, classes, strict=True)]
        for measure, label in ((ACCURACY, ""), *((m, name) for name, m in RECALL.items())):
            chosen = [(hit, row.messages) for row, hit in hits if label in ("", row.label)]
            if chosen:
                yield evidence.mean(measure, reader, "", *zip(*chosen, strict=True))


REPLY_AUDIT = Evaluator(
    "Can the classes of replies be trusted?",
    readers,
    lambda plan: (ACCURACY, *RECALL.values()),
    evaluate,
    cases="classed replies; those to one prompt count as one unit",
    given="these replies and their labels",
)
