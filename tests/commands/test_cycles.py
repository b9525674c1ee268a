"""cycles, as a user runs it: whole runs of the tiny config, one attacking the other."""

import json

import pytest
from commanded import command
from tiny_run import TESTS

from cai_jax.data.readers import read_attacks
from cai_jax.stages.workdir import link_folder

CONFIG = """
import sys
sys.path.insert(0, {tests!r})
from conftest import load_config
from ml_collections import ConfigDict
from tiny_run import TINY_RUN

def get_config():
    return ConfigDict(load_config("rlaif", "smoke", **(TINY_RUN | {own!r})))
"""


def cycles(file, workdir, *flags):
    done = command("cycles", f"--config={file}", f"--workdir={workdir}", *flags)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


def test_nobody_attacks(tmp_path):
    done = cycles("configs/rlaif.py", tmp_path)
    assert done.returncode == 1
    assert "config.red_team.rounds and config.evaluate.attacks" in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_each_cycle_attacks_the_one_before_and_the_next_trains_on_it(
    finished, model_folder, tmp_path
):
    # All attacks succeed, of which a random model writes few. What it replies no attack changes.
    own = {"model.source": str(model_folder), "red_team.threshold": 1e9}
    own |= {"evaluate.benchmarks": "", "evaluate.kept_policies": False}  # `finished` has them
    file, store = tmp_path / "tiny.py", tmp_path / "stages"
    file.write_text(CONFIG.format(tests=str(TESTS), own=own))
    for stage in ("sl_data", "sl_train"):
        fingerprint = finished.workdir.fingerprint(stage)
        link_folder(finished.workdir.folder(stage), store / f"{stage}-{fingerprint}")
    done = cycles(file, tmp_path / "runs", f"--config.stage_store={store}", "--cycles=2")
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (tmp_path / "runs" / f"cycle-{k}" for k in range(2))
    assert f"sl_data: taken from {store}" in done.stderr
    assert not (first / "red_team" / "attacks.jsonl").exists()
    manifest = json.loads((second / "red_team" / "manifest.json").read_text())
    config = json.loads((second / "config.json").read_text())["red_team"]
    assert config["target"] == str(first / "rl" / "checkpoint")
    kept = second / "red_team" / "attacks.jsonl"
    assert manifest["metrics"]["attacks"] == (len(read_attacks(kept)) if kept.exists() else 0)
    table = (tmp_path / "runs" / "table.md").read_text()
    assert table.splitlines()[0] == "| measure | cycle 0 | cycle 1 |"
    assert "attacks.success/rl_cai/preference_model/all" in table
