"""Samples completions of prompts.

python -m cai_jax.generate --model=SOURCE --data=IN.jsonl --out=OUT.jsonl --temperature=0.7

A row is {"prompt": ...} as text, {"messages": ...} as turns, or prompt_ids. It comes back with
``completion_ids``, ``token_logprobs`` (under the distribution that was sampled), whether it
``finished`` with a stop token, and, where the prompt was text, with its ``completion`` as text. A
row's completion depends on its prompt, its line number and the seed, not on the batch.
"""

from typing import Any

from absl import flags

from cai_jax.commands import jsonl, models, texts
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.data.jsonl import JsonRow
from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.models.io.sources import ModelSource

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
    source = named_source()
    prompts = texts.token_ids(rows, source, "prompt")
    texts.check_lengths(rows, source, [len(ids) + MAX_NEW_TOKENS.value for ids in prompts])
    stops, mesh = texts.stop_ids(rows, source), models.open_mesh()
    model = models.open_policy(source, mesh)
    completions = Generator(model, mesh, stops, models.BATCH_SIZE.value).generate(
        prompts,
        [named_key(SEED.value, "generate", row.line - 1) for row in rows],
        MAX_NEW_TOKENS.value,
        Sampling(TEMPERATURE.value, TOP_K.value, TOP_P.value),
    )
    jsonl.write_rows(
        row.fields | answer(row, completion, source)
        for row, completion in zip(rows, completions, strict=True)
    )


def answer(row: JsonRow, completion: Completion, source: ModelSource) -> dict[str, Any]:
    """What comes back of a row, besides its own fields."""
    fields = {
        "completion_ids": completion.ids,
        "token_logprobs": completion.logprobs.tolist(),
        "finished": completion.finished,
    }
    if row.fields.get("prompt_ids") is not None:
        return fields
    return fields | {"completion": texts.chat_of(source).text(completion.ids)}


if __name__ == "__main__":
    start(main)
