"""Samples completions of prompts.

python -m cai_jax.generate --model=SOURCE --data=IN.jsonl --out=OUT.jsonl --temperature=0.7

A row is {"prompt": ...} as text, {"messages": ...} as turns, or prompt_ids. It comes back with
``completion_ids``, ``token_logprobs`` (under the distribution that was sampled), whether it
``finished`` with a stop token, and, where the prompt was text, with its ``completion`` as text. A
row's completion depends on its prompt, its line number and the seed, not on the batch.
"""

from absl import flags

from cai_jax.commands import front, jsonl
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.models.io.load import load_policy

TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "0: the likeliest token", lower_bound=0.0)
TOP_K = flags.DEFINE_integer("top_k", 0, "keep the k likeliest tokens; 0: all", lower_bound=0)
TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "keep the fewest tokens of this probability", lower_bound=1e-6, upper_bound=1.0
)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 128, "limit", lower_bound=1)
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0)


def main() -> None:
    """Completes every row."""
    rows = jsonl.read_rows(("prompt",))
    source, mesh, dtype = jsonl.open_model(), jsonl.open_mesh(), jsonl.dtype()
    prompts = jsonl.token_ids(rows, source, "prompt")
    jsonl.check_lengths(rows, source, [len(ids) + MAX_NEW_TOKENS.value for ids in prompts])
    stops = jsonl.stop_ids(rows, source)
    model = load_policy(source, mesh, dtype, dtype)
    completions = Generator(model, mesh, stops, jsonl.BATCH_SIZE.value).generate(
        prompts,
        [named_key(SEED.value, "generate", row.line - 1) for row in rows],
        MAX_NEW_TOKENS.value,
        Sampling(TEMPERATURE.value, TOP_K.value, TOP_P.value),
    )
    answers = []
    for row, completion in zip(rows, completions, strict=True):
        answer = {
            "completion_ids": completion.ids,
            "token_logprobs": completion.logprobs.tolist(),
            "finished": completion.finished,
        }
        if row.fields.get("prompt_ids") is None:
            answer["completion"] = jsonl.open_chat(source).text(completion.ids)
        answers.append(row.fields | answer)
    jsonl.write_rows(answers)


if __name__ == "__main__":
    front.run(main)
