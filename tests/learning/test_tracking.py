"""Weights & Biases: what training writes there, and what is said where it cannot."""

import importlib.util
import json
import struct
import sys

import pytest
import wandb
from wandb.proto.wandb_internal_pb2 import Record

from cai_jax.learning.history import open_history
from cai_jax.learning.tracking import check_tracking
from cai_jax.storage.sealed import sealed_text

BLOCK = 2**15


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """The environment of somebody who asks for it, without a network."""
    for name, value in {
        "PROJECT": "cai",
        "MODE": "offline",
        "DIR": tmp_path,
        "SILENT": True,
    }.items():
        monkeypatch.setenv(f"WANDB_{name}", str(value))
    yield
    wandb.teardown()


def records(folder):
    """What wandb keeps to send, in order."""
    wandb.teardown()  # its process writes on for a moment
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    data, at, found, held = file.read_bytes(), 7, [], b""  # LevelDB's log after a head of 7 bytes
    while at < len(data):
        if (left := BLOCK - at % BLOCK) < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        held += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # the whole of a record, or its end
            found.append(Record.FromString(held))
            held = b""
    return found


def test_scalars_and_texts_are_written_with_the_config(asked, monkeypatch, tmp_path):
    workdir, secret = tmp_path / "lr3", "p4ssw0rd"
    workdir.mkdir()
    (workdir / "config.json").write_text(sealed_text({"seed": 7}))
    monkeypatch.setattr(sys, "argv", ["main", f"--config.model.source=https://me:{secret}@x.y/z"])
    check_tracking()
    with open_history(workdir / ".pm_train.partial" / "nurses", "pm_train", 2, ()) as history:
        history.go_on([{"loss": 2.5}])
        history.show(0, {"replies/a": "said"})
        history.record({"loss": 0.5})
    found = records(tmp_path)
    items = lambda group: {i.key or i.nested_key[0]: json.loads(i.value_json) for i in group}
    rows = [items(r.history.item) for r in found if r.HasField("history")]
    told = [{k: v for k, v in row.items() if not k.startswith("_")} for row in rows]
    assert told == [
        {"step": 0, "loss": 2.5},
        {"step": 0, "replies/a": "said"},
        {"step": 1, "loss": 0.5},
    ]
    (run,) = (r.run for r in found if r.HasField("run"))
    assert (run.project, run.display_name) == ("cai", "lr3/pm_train/nurses")
    assert run.run_group == "lr3"
    assert {i.key: json.loads(i.value_json) for i in run.config.update}["seed"] == 7
    for file in tmp_path.glob("wandb/**/*"):
        assert not file.is_file() or secret.encode() not in file.read_bytes()


def test_nobody_asks(monkeypatch, tmp_path):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    check_tracking()
    with open_history(tmp_path / "run" / "rl", "rl", 1, ()) as history:
        history.record({"loss": 2.5})
    assert not (tmp_path / "wandb").exists()


def test_a_project_without_wandb_is_refused(asked, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"WANDB_PROJECT is set, but wandb is not .*pip install"):
        check_tracking()


def test_a_folder_of_its_runs_is_no_wandb(asked, monkeypatch, tmp_path):
    (tmp_path / "wandb").mkdir()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    monkeypatch.delitem(sys.modules, "wandb")
    with pytest.raises(ValueError, match="is not installed"):
        check_tracking()


def test_what_cannot_be_sent_ends_no_training(asked, monkeypatch, tmp_path, caplog):
    def refuse(**settings):
        raise ConnectionError("nobody is there")

    monkeypatch.setattr(wandb, "init", refuse)
    with open_history(tmp_path / "run" / "rl", "rl", 1, ()) as history:
        history.record({"loss": 2.5})
    assert history.rows == [{"loss": 2.5}]
    assert "nobody is there" in caplog.text


def test_a_project_of_nobody_is_refused(asked, monkeypatch, tmp_path):
    wandb.teardown()
    monkeypatch.setenv("HOME", str(tmp_path))  # no ~/.netrc
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    with pytest.raises(ValueError, match=r"has no key; run wandb login"):
        check_tracking()
