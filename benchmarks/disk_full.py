"""A full disk in each stage of a finished run: one sentence, and on once there is room.

    sudo mount -t tmpfs -o size=256m tmpfs /mnt/small
    python benchmarks/disk_full.py WORKDIR /mnt/small [STAGE,...]

Stage after stage, the run is copied to the small disk without that stage, the disk is filled, and
the run is started: it has to end with one sentence that names the folder. Then the disk is emptied,
and the same start has to make that stage, and no other.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

from cai_jax.main import run_config
from cai_jax.stages.behaviour import finished_run
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import due_stages, fingerprints
from cai_jax.stages.stage import Run, open_run

LEFT = 16 * 1024  # bytes that are free on the full disk: room for a folder and a small file


def fill(disk: Path) -> Path:
    """A file that leaves hardly any room."""
    file = disk / "filler"
    with file.open("wb") as out:
        left = shutil.disk_usage(disk).free - LEFT
        while left > 0:
            left -= out.write(b"x" * min(left, 1 << 20))
    return file


def full_in(run: Run, stage: str, disk: Path) -> str:
    """What went wrong with a full disk in a stage; empty if nothing did."""
    workdir = disk / "run"
    shutil.rmtree(workdir, ignore_errors=True)
    shutil.copytree(run.workdir.path, workdir)
    shutil.rmtree(workdir / stage)
    copy = open_run(replace(run.config, workdir=str(workdir)))
    found = fingerprints(copy, stages_of(copy.config))
    filler, said = fill(disk), ""
    try:
        run_config(copy.config)
        said = "no error"
    except OSError as error:
        words = f"{error}"
        if "no space left on device; make room" not in words or str(workdir) not in words:
            said = f"another error: {words}"
    except Exception as error:
        said = f"{type(error).__name__} instead of one sentence: {error}"
    filler.unlink()
    if said:
        return said
    if due_stages(copy, stages_of(copy.config), found) != [stage]:
        return "other stages were lost"
    run_config(copy.config)
    return "" if not due_stages(copy, stages_of(copy.config), found) else "it did not go on"


if __name__ == "__main__":
    finished = finished_run(Path(sys.argv[1]).resolve())
    names = sys.argv[3].split(",") if len(sys.argv) > 3 else finished.config.stages
    wrong = 0
    for stage in stages_of(finished.config):
        if stage.name in names:
            problem = full_in(finished, stage.name, Path(sys.argv[2]).resolve())
            wrong += bool(problem)
            print(
                f"{stage.name}: {problem or 'one sentence, and on once there was room'}", flush=True
            )
    sys.exit(bool(wrong))
