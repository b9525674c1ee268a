"""A full disk in each stage of a finished run: one sentence, and on once there is room.

    sudo mount -t tmpfs -o size=256m tmpfs /mnt/small
    python benchmarks/disk_full.py WORKDIR /mnt/small [STAGE,...]

Stage after stage, the run is copied to the small disk without that stage, the disk is filled, and
the command is given: it has to end with one sentence that names the folder, and no traceback. Then
the disk is emptied, and the same run has to make that stage, and no other.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from cai_jax.main import run_config
from cai_jax.stages.behaviour import finished_run
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import due_stages, fingerprints
from cai_jax.stages.stage import Run, open_run

CONFIG = """
from pathlib import Path

from ml_collections import ConfigDict

from cai_jax.storage.sealed import read_sealed

def get_config():
    found = read_sealed(Path({run!r}) / "config.json")
    return ConfigDict({{**found, "stages": "all", "workdir": {workdir!r}}})
"""
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
    filler = fill(disk)
    with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
        file.write(CONFIG.format(run=str(run.workdir.path), workdir=str(workdir)))
        file.flush()
        command = [sys.executable, "-m", "cai_jax.main", f"--config={file.name}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    filler.unlink()
    *_, last = done.stderr.splitlines()
    if done.returncode != 1 or "Traceback" in done.stderr:
        return f"exit code {done.returncode}, and no sentence alone:\n{done.stderr}"
    if not last.startswith(f"error: {workdir}") or "no space left on device; make room" not in last:
        return f"another error: {last}"
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
