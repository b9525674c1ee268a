"""Paths are read one way, and folders are replaced whole, whenever the process is killed."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from cai_jax.storage.files import disk_problem, old_of, partial_of, resolved, without_globs
from cai_jax.storage.sealed import problem_of, repair, seal_folder

# Replaces a folder, and is killed before the step of this number.
KILLED = """
import os, signal, sys
from pathlib import Path
from cai_jax.storage.files import partial_of, put_in_place
left = int(sys.argv[2])
def count(event, _):
    global left
    if event in ("os.rename", "os.remove", "os.rmdir", "shutil.rmtree"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(count)
put_in_place(Path(sys.argv[1]), partial_of(Path(sys.argv[1])))
"""


def write(folder, text):
    (folder / "deeper").mkdir(parents=True)
    (folder / "deeper" / "file.txt").write_text(text)
    seal_folder(folder, {"stage": "x", "text": text})


def test_a_kill_at_any_step_of_a_replacement_leaves_a_whole_folder(tmp_path):
    left, kills = [], 0
    while True:
        final = tmp_path / str(kills) / "stage"
        write(final, "old")
        write(partial_of(final), "new")
        command = [sys.executable, "-c", KILLED, str(final), str(kills)]
        code = subprocess.run(command, cwd=ROOT, check=False).returncode
        repair(final)
        assert not problem_of(final)
        assert not old_of(final).exists()
        left.append((final / "deeper" / "file.txt").read_text())
        kills += 1
        if code == 0:
            break
    assert kills > 5
    assert left == sorted(left, reverse=True)  # the old one until the new one can be
    assert (left[0], left[-1]) == ("old", "new")


def test_a_folder_that_is_not_whole_replaces_nothing(tmp_path):
    final = tmp_path / "stage"
    write(old_of(final), "old")
    write(partial_of(final), "new")
    (partial_of(final) / "deeper" / "file.txt").unlink()
    repair(final)
    assert (final / "deeper" / "file.txt").read_text() == "old"
    assert partial_of(final).exists()  # whoever makes the stage goes on with it


def test_paths_are_resolved_once(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "far" / "stage").mkdir(parents=True)
    (tmp_path / "near").mkdir()
    (tmp_path / "near" / "stage").symlink_to(tmp_path / "far" / "stage")
    assert resolved("~/near/stage/../model") == tmp_path / "far" / "model"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for named in (tmp_path / "loop", "gs://bucket/run", "~nobody-of-this-name/run"):
        with pytest.raises(ValueError, match=str(named)):
            resolved(named)


def test_a_folder_is_no_pattern(tmp_path):
    folder = tmp_path / "run [1] *"
    folder.mkdir()
    with without_globs(folder) as plain:
        (plain / "file").write_text("x")
        assert not set("*?[]") & set(str(plain))
    assert [p.name for p in folder.iterdir()] == ["file"]
    assert not plain.exists()


def test_what_a_disk_refuses_is_one_sentence(tmp_path):
    with pytest.raises(OSError, match="No space") as full:
        Path("/dev/full").write_text("x")
    said = disk_problem(RuntimeError(f"DATA_LOSS: {full.value}"), tmp_path)
    assert said.startswith(f"{tmp_path}: no space left on device; make room, and give the same")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file") as blocked:
        (tmp_path / "file" / "folder").mkdir()
    wrapped = ValueError("a library's own words")
    wrapped.__cause__ = blocked.value
    assert f"{tmp_path}/file/folder: not a directory; move away" in disk_problem(wrapped, tmp_path)
    assert not disk_problem(ValueError("of something else"), tmp_path)
