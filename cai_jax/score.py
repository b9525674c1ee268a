"""Scores completions: log-probabilities of a language model, or a preference model's verdict.

python -m cai_jax.score --model=SOURCE --data=IN.jsonl --out=OUT.jsonl

A row is {"prompt": ..., "completion": ...} as text, or prompt_ids and completion_ids; in place of
prompt it may have {"messages": ...}, turns of a dialogue. It comes back with ``token_logprobs``,
one number a token of the completion (its end of turn included where it is text in chat form), or,
from a preference model, with its ``score``.
"""

from cai_jax.commands import front, jsonl
from cai_jax.generation.scoring import Scorer
from cai_jax.models.io.load import load_policy, load_preference_model


def main() -> None:
    """Scores every row."""
    rows = jsonl.read_rows(("prompt", "completion"))
    source, mesh, dtype = jsonl.open_model(), jsonl.open_mesh(), jsonl.dtype()
    prompts = jsonl.token_ids(rows, source, "prompt")
    completions = jsonl.token_ids(rows, source, "completion")
    whole = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
    jsonl.check_lengths(rows, source, [len(ids) for ids in whole])
    if source.kind == "preference":
        if not source.checkpoints:
            # transformers reads a classifier's score at the last token that is not padding.
            padding = source.hugging_face_fields.get("pad_token_id")
            whole = [_without_end(ids, padding) for ids in whole]
        model, _ = load_preference_model(source, mesh, dtype, dtype)
        scores = Scorer(model, mesh, jsonl.BATCH_SIZE.value).preference_scores(whole)
        answers = [{"score": float(score)} for score in scores]
    else:
        model = load_policy(source, mesh, dtype, dtype)
        scorer = Scorer(model, mesh, jsonl.BATCH_SIZE.value)
        logprobs = scorer.completion_logprobs(prompts, completions)
        answers = [{"token_logprobs": row.tolist()} for row in logprobs]
    jsonl.write_rows([row.fields | answer for row, answer in zip(rows, answers, strict=True)])


def _without_end(ids: list[int], padding: int | None) -> list[int]:
    end = len(ids)
    while end > 1 and ids[end - 1] == padding:
        end -= 1
    return ids[:end]


if __name__ == "__main__":
    front.run(main)
