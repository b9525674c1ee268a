"""Scores completions: log-probabilities of a language model, or a preference model's verdict.

python -m cai_jax.score --model=SOURCE --data=IN.jsonl --out=OUT.jsonl

A row is {"prompt": ..., "completion": ...} as text, or prompt_ids and completion_ids; in place of
prompt it may have {"messages": ...}, turns of a dialogue. It comes back with ``token_logprobs``,
one number a token of the completion (its end of turn included where it is text in chat form), or,
from a preference model, with its ``score``.
"""

from collections.abc import Sequence
from typing import Any

from cai_jax.commands import jsonl, models, texts
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.generation.scoring import Scorer
from cai_jax.models.io.sources import ModelSource


def main() -> None:
    """Scores every row."""
    rows = jsonl.read_rows(("prompt", "completion"))
    source = named_source()
    prompts, completions = (
        texts.token_ids(rows, source, field) for field in ("prompt", "completion")
    )
    whole = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    texts.check_lengths(rows, source, [len(ids) for ids in whole])
    answers: list[dict[str, Any]]
    if source.kind == "preference":
        answers = [{"score": score} for score in preference_scores(source, whole)]
    else:
        found = token_logprobs(source, prompts, completions)
        answers = [{"token_logprobs": logprobs} for logprobs in found]
    jsonl.write_rows(row.fields | answer for row, answer in zip(rows, answers, strict=True))


def token_logprobs(
    source: ModelSource, prompts: Sequence[list[int]], completions: Sequence[list[int]]
) -> list[list[float]]:
    """Log-probability of every token of every completion, given its prompt."""
    mesh = models.open_mesh()
    scorer = Scorer(models.open_policy(source, mesh), mesh, models.BATCH_SIZE.value)
    return [row.tolist() for row in scorer.completion_logprobs(prompts, completions)]


def preference_scores(source: ModelSource, dialogues: Sequence[list[int]]) -> list[float]:
    """A preference model's score of every dialogue."""
    return models.open_judge(source, models.open_mesh()).preference_scores(dialogues).tolist()


if __name__ == "__main__":
    start(main)
