"""How likely plain text is: what alignment costs a language model.

Texts longer than the model reads at once are read in windows that overlap by half, so that every
token but those of a text's beginning has half a window before it.
"""

import math
from collections.abc import Sequence

import numpy as np

from cai_jax.data.readers import Text, read_texts
from cai_jax.evaluation.measure import Measure
from cai_jax.evaluation.tasks.task import Method, Result, Task, TaskSettings, TaskTools, Values

MEASURES = (
    Measure("nats_per_token", "nats a token", "lower", "of all tokens together"),
    Measure("bits_per_byte", "bits a byte", "lower", "of UTF-8; comparable between tokenizers"),
    Measure("perplexity", "", "lower", "exp of nats a token"),
)


def windows(item: Text, settings: TaskSettings) -> list[tuple[list[int], list[int]]]:
    """What is read before, and what is scored then, window by window; every token once."""
    tokenizer = settings.chat.tokenizer
    ids = settings.chat.plain_ids(item.text, starts=True)
    start = tokenizer.bos_token_id
    if start is None:
        start = tokenizer.eos_token_id  # it ends the text before, as models are pretrained
    if start is not None and ids[0] != start:
        ids = [start, *ids]
    half = settings.window // 2
    found = [(ids[:1], ids[1 : 2 * half])]
    for at in range(2 * half, len(ids), half):
        found.append((ids[at - half : at], ids[at : at + half]))
    return found


def _run(items: Sequence[Text], tools: TaskTools) -> list[Result]:
    parts = [windows(item, tools.settings) for item in items]
    flat = [window for found in parts for window in found]
    before, scored = [list(side) for side in zip(*flat, strict=True)]
    nats = iter(tools.scorer.completion_logprobs(before, scored, name="texts"))
    results = []
    for item, found in zip(items, parts, strict=True):
        values = {
            "nats": -float(sum(np.sum(next(nats), dtype=np.float64) for _ in found)),
            "tokens": sum(len(ids) for _, ids in found),
            "bytes": len(item.text.encode("utf-8")),
        }
        results.append(Result(item.id, item.category, item.id, values))
    return results


def _sum_up(results: Sequence[Result]) -> list[Values]:
    """Ratios of sums, without intervals: texts differ in length and kind."""
    nats, tokens, size = (
        sum(result.values[name] for result in results) for name in ("nats", "tokens", "bytes")
    )
    means = nats / tokens, nats / math.log(2) / size, math.exp(nats / tokens)
    return [(mean, None, None, None) for mean in means]


PERPLEXITY = Task(
    read=read_texts,
    methods={
        "likelihood": Method(
            kind="policy",
            run=_run,
            longest=lambda item, settings: 0,
            programs=lambda tools, title: tools.scorer.logprob_programs(f"{title}: texts"),
        )
    },
    measures=MEASURES,
    sum_up=_sum_up,
    chat=False,
)
