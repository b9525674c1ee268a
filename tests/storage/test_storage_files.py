"""Paths are read one way, and folders are replaced whole, whenever the process is killed."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from tiny_run import tiny_config

from cai_jax.commands.files import out_file
from cai_jax.constitution.schema import load_constitution
from cai_jax.data.readers import read_prompts
from cai_jax.stages.stage import open_run
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


def test_whatever_a_user_names_is_read_through_home_and_links(tmp_path, monkeypatch, model_folder):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "files").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "files")
    kinds = {"constitution": ROOT / "constitutions" / "microworld" / "groups" / "earnest.yaml"}
    kinds["texts"] = tmp_path / "texts.jsonl"
    kinds["texts"].write_text('{"prompt": "how can I help ?"}\n')
    for file in kinds.values():
        shutil.copy(file, tmp_path / "files")
    shutil.copytree(model_folder, tmp_path / "files" / "model")
    names = {kind: f"~/linked/{file.name}" for kind, file in kinds.items()}
    given = {
        "constitution.path": names["constitution"],
        "data.red_team_prompts": names["texts"],
        "model.architecture": "~/linked/model",
        "model.source": "~/linked/model",
    }
    run = open_run(tiny_config("~/linked/run", model_folder, **given))
    assert run.workdir.path == tmp_path / "files" / "run"
    assert run.data.constitution == load_constitution(kinds["constitution"])
    assert run.data.rows("red_team_prompts") == read_prompts(kinds["texts"])
    assert run.models.source().path == tmp_path / "files" / "model"
    ahead = open_run(run.config, ahead=True)
    assert ahead.models.source().config == run.models.source().config
    assert out_file("~/linked/out.json") == tmp_path / "files" / "out.json"
    assert out_file("/dev/null") == Path("/dev/null")


def test_no_other_place_makes_paths_of_what_users_name():
    places = {"storage/files.py", "commands/files.py"}
    odd = re.compile(r"expanduser|Path\(\w+\.value\)|Path\((self\._|c\.|config\.)")
    found = [
        f"{name}: {line.strip()}"
        for file in (ROOT / "cai_jax").rglob("*.py")
        if (name := file.relative_to(ROOT / "cai_jax").as_posix()) not in places
        for line in file.read_text(encoding="utf-8").splitlines()
        if odd.search(line)
    ]
    assert not found


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
