"""What resuming costs: of training and RL, the share of the time in which a state was being saved.

    python benchmarks/resuming.py WORKDIR COPY [STAGE,...]

A finished run is copied without a stage, which is then made again. From the call that saves a state
until that state is sealed, a save may hold the loop up or compete with it for cores; at no other
time does it cost anything. So the share of those seconds is the most that it can cost. Stages timed
with and without states would not show so little: equal runs took 285 to 339 seconds on one machine.
Writes benchmarks/results/resuming.json.
"""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

from side_by_side import write

from cai_jax.config import Config
from cai_jax.learning.saving import Saver
from cai_jax.main import run_config
from cai_jax.stages.behaviour import finished_run


@contextmanager
def timed_saves() -> Iterator[tuple[dict[int, float], dict[int, float]]]:
    """Seconds from the start of a save until the loop goes on, and until it is sealed, by step."""
    started, held, sealed = dict[int, float](), dict[int, float](), dict[int, float]()
    save, seal = Saver.save, Saver._seal

    def timed_save(saver: Saver, step: int, state: Any, notes: Any) -> None:
        started[step] = time.monotonic()
        save(saver, step, state, notes)
        held[step] = time.monotonic() - started[step]

    def timed_seal(saver: Saver, step: int) -> None:
        seal(saver, step)
        sealed[step] = time.monotonic() - started[step]

    with patch.multiple(Saver, save=timed_save, _seal=timed_seal):
        yield held, sealed


def shares(config: Config, stage: str, copy: Path) -> dict[str, float]:
    """What saves take of a stage that is made again in a copy, compilation left out."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(config.workdir, copy)
    shutil.rmtree(copy / stage)
    with timed_saves() as (held, sealed):
        run_config(replace(config, workdir=str(copy), stages=(stage,)))
    manifest = json.loads((copy / stage / "manifest.json").read_text(encoding="utf-8"))
    seconds = manifest["seconds"] - manifest["compile_seconds"]
    return {
        "seconds": seconds,
        "states": len(sealed),
        "share held up": sum(held.values()) / seconds,
        "share at most": sum(sealed.values()) / seconds,
    }


def main(workdir: str, copy: str, stages: str = "sl_train,rl") -> None:
    """Every stage that is asked for."""
    config = finished_run(Path(workdir).resolve()).config
    write("resuming", {s: shares(config, s, Path(copy).resolve()) for s in stages.split(",")})


if __name__ == "__main__":
    main(*sys.argv[1:])
