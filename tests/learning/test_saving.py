"""States on a disk that is full."""

import shutil
import subprocess
import sys

from conftest import ROOT

SAVES = """
from contextlib import closing
from pathlib import Path

import jax.numpy as jnp

from cai_jax.commands.front import start
from cai_jax.learning.saving import Saver
from cai_jax.storage.files import explaining_disk

def main():
    folder = Path({folder!r})
    state = {{str(n): jnp.ones(100_000) * n for n in range(40)}}
    with explaining_disk(folder), closing(Saver(folder / "states")) as saver:
        saver.save(1, state, {{"note": "x" * 100_000}})

start(main)
"""


def saved(folder):
    command = [sys.executable, "-c", SAVES.format(folder=str(folder))]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_full_disk_is_one_sentence_and_no_traceback_of_a_thread(small_disk):
    with (small_disk / "filler").open("wb") as file:
        file.write(b"x" * (shutil.disk_usage(small_disk).free - 64 * 1024))
    done = saved(small_disk)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    *_, last = done.stderr.splitlines()
    assert last.startswith(f"error: {small_disk}")
    assert "no space left on device; make room, and give the same command again" in last
    (small_disk / "filler").unlink()
    assert saved(small_disk).returncode == 0
