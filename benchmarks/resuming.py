"""What resuming costs: training and RL with states saved as a run says, beside none at all.

    python benchmarks/resuming.py WORKDIR COPY [STAGE,...]

A finished run is copied without a stage, which is then made again, either way in turn. Writes
benchmarks/results/resuming.json: seconds of the stage without compilation, and their ratio.
"""

import json
import shutil
import sys
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from side_by_side import compared, write

from cai_jax.config import Config
from cai_jax.main import run_config
from cai_jax.stages.behaviour import finished_run

REPEATS = 3
NEVER = 10**9


def seconds(config: Config, stage: str, copy: Path) -> float:
    """That a stage takes when it is made again in a copy."""
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(config.workdir, copy)
    shutil.rmtree(copy / stage)
    run_config(replace(config, workdir=str(copy), stages=(stage,)))
    manifest = json.loads((copy / stage / "manifest.json").read_text(encoding="utf-8"))
    return float(manifest["seconds"] - manifest["compile_seconds"])


def main(workdir: str, copy: str, stages: str = "sl_train,rl") -> None:
    """Times every stage that is asked for; the first of each way warms up and is not counted."""
    config = finished_run(Path(workdir).resolve()).config
    never = replace(config.resume, every_steps=NEVER, every_iterations=NEVER)
    ways = {"states saved": config, "none": replace(config, resume=never)}
    found = {}
    for stage in stages.split(","):
        taken = defaultdict[str, list[float]](list)
        for _ in range(REPEATS + 1):
            for name, way in ways.items():
                taken[name].append(seconds(way, stage, Path(copy).resolve()))
        counted = {name: times[1:] for name, times in taken.items()}
        found[stage] = {"each": counted, **compared(counted, "none")}
    write("resuming", found)


if __name__ == "__main__":
    main(*sys.argv[1:])
