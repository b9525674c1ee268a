"""What benchmarks of speed share: alternating repetitions, the machine, ratios and spread."""

import importlib.metadata
import json
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import Execution
from cai_jax.parallel.devices import cpu_has_bfloat16

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("jax", "jaxlib", "torch", "transformers")


def alternating(ways: Mapping[str, Callable[[], Any]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each way, one after the other, after one call of each that is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for count in range(repeats + 1):
        for name, call in ways.items():
            start = time.perf_counter()
            call()
            if count:
                found[name].append(time.perf_counter() - start)
    return found


def compared(seconds: Mapping[str, list[float]], ours: str) -> dict[str, Any]:
    """Medians, and how many times longer each other way takes, with the least and the most."""
    table: dict[str, Any] = {"seconds": {n: statistics.median(s) for n, s in seconds.items()}}
    table["times"] = {
        name: {
            "ratio": statistics.median(taken) / statistics.median(seconds[ours]),
            "least": min(taken) / max(seconds[ours]),
            "most": max(taken) / min(seconds[ours]),
        }
        for name, taken in seconds.items()
        if name != ours
    }
    return table


def machine() -> dict[str, Any]:
    """The CPU and the versions that matter."""
    cpu = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    names = {line.partition(": ")[2] for line in cpu.splitlines() if "model name" in line}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "cpu": ", ".join(sorted(names)),
        "cores": cpu.count("processor\t"),
        "bfloat16 instructions": cpu_has_bfloat16(),
        "python": platform.python_version(),
        **versions,
    }


def matmul_rate(rows: int, size_in: int, size_out: int, dtype: jnp.dtype) -> float:
    """FLOP/s of ``rows`` times 60 matrices that no cache holds together, as XLA multiplies them."""
    matrices = [jnp.full((size_in, size_out), 0.01 * (1 + i), dtype) for i in range(60)]
    x = jnp.ones((rows, size_in), dtype)

    @jax.jit
    def multiply(x: jax.Array, matrices: list[jax.Array]) -> jax.Array:
        def each(_: int, total: jax.Array) -> jax.Array:
            for matrix in matrices:
                out = jnp.einsum("bi,io->bo", total.astype(dtype), matrix)
                total = total + out[:, :1].astype(jnp.float32) * 1e-6
            return total

        return jax.lax.fori_loop(0, 4, each, x.astype(jnp.float32))

    taken = alternating({"": lambda: multiply(x, matrices).block_until_ready()}, 5)[""]
    return 2.0 * rows * size_in * size_out * 60 * 4 / statistics.median(taken)


def weights_dtype(model: Model) -> jnp.dtype:
    """Of the matrices that a model at rest multiplies by."""
    return next(x.dtype for x in jax.tree.leaves(model.params) if x.ndim == 3)


def on_laptop(blueprint: Blueprint) -> Blueprint:
    """As the laptop preset trains: what the matmuls of so small a model give is kept."""
    execution = Execution(remat="dots_with_no_batch_dims_saveable")
    return replace(blueprint, config=replace(blueprint.config, execution=execution))


def write(name: str, found: Mapping[str, Any]) -> None:
    """Into results/, and on the screen."""
    text = json.dumps({"machine": machine(), **found}, indent=1)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)
