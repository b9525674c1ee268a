"""A run tells how long it will take, by finished stages that are alike."""

import pytest
from conftest import ROOT, load_config

from cai_jax.config import parse_config, plain
from cai_jax.stages import feedback, sl_data
from cai_jax.stages.estimate import TimeLeft, time_left
from cai_jax.stages.stage import open_run
from cai_jax.storage.sealed import MANIFEST, sealed_text

STAGES = [sl_data.STAGE, feedback.STAGE]


def left_by(folder, name, seconds, config, devices="1 x cpu"):
    """What a run has left in a folder: its config, and the stage sl_data."""
    stage = folder / name / "sl_data"
    stage.mkdir(parents=True)
    (folder / name / "config.json").write_text("{}")
    fields = {"seconds": seconds, "devices": devices, "config": plain(config)}
    (stage / MANIFEST).write_text(sealed_text(fields))


def config(folder, **changes):
    return parse_config(load_config("rlaif", "smoke", workdir=str(folder), **changes))


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    return open_run(config(tmp_path / "new"))


@pytest.mark.parametrize(
    ("changes", "devices", "expected"),
    [
        ({"seed": 7, "rl.iterations": 3}, "1 x cpu", 60.0),
        ({"sl_data.rounds": 2}, "1 x cpu", None),
        ({}, "4 x TPU v5e", None),
    ],
)
def test_a_stage_alike_of_a_run_beside_tells(run, tmp_path, changes, devices, expected):
    left_by(tmp_path, "old", 60.0, config(tmp_path / "old", **changes), devices)
    found = time_left(run, STAGES, [], "1 x cpu")
    assert found.expected == {"sl_data": expected, "feedback": None}


def test_its_own_folder_comes_first_and_what_is_damaged_tells_nothing(run, tmp_path):
    left_by(tmp_path, "new", 30.0, run.config)
    left_by(tmp_path, "old", 60.0, run.config)
    assert time_left(run, STAGES, [], "1 x cpu").expected["sl_data"] == 30.0
    (tmp_path / "new" / "sl_data" / MANIFEST).write_text("{")
    assert time_left(run, STAGES, [], "1 x cpu").expected["sl_data"] == 60.0


def test_it_goes_by_the_pace_of_what_is_done():
    left = TimeLeft({"sl_data": 60.0, "sl_train": 30.0, "rl": 200.0, "report": None})
    assert str(left) == "; about 5 min left for 3 of 4"
    left.done("sl_data", 90.0)
    left.drop("sl_train")  # it is taken from elsewhere
    assert str(left) == "; about 5 min left for 1 of 2"
    left.drop("report")
    assert str(left) == "; about 5 min left"
    left.done("rl", 300.0)
    assert str(left) == ""
    left.done("rl", 300.0)  # once more, after pretraining
