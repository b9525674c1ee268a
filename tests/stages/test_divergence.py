"""What diverged is named where it is seen, by the stage that made it and the field to change."""

import json
import shutil

import numpy as np
import pytest
from conftest import ROOT
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny_model import write_tiny_model
from tiny_run import tiny_config

from cai_jax.config import ConfigError
from cai_jax.learning.skipping import DivergedError
from cai_jax.models.io import checkpoint
from cai_jax.models.io.load import load_update
from cai_jax.stages import pm_train
from cai_jax.stages.engines import make_reward
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import run_stages
from cai_jax.stages.stage import open_run
from cai_jax.storage.sealed import MANIFEST, read_sealed, seal_folder

HUGE = 3e38  # finite, so that files may hold it


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def copied(finished, model_folder, tmp_path):
    """A copy of the finished run, of which some stages are to be run again."""
    workdir = tmp_path / "work"
    shutil.copytree(finished.workdir.path, workdir)

    def run(*again, **changes):
        for stage in again:
            shutil.rmtree(workdir / stage)
        names = {"stages": ",".join(again), "rerun_changed": True}
        return open_run(tiny_config(workdir, model_folder, **names, **changes))

    return run


def reseal(folder):
    fields = read_sealed(folder / MANIFEST)
    fields.pop("files")
    seal_folder(folder, fields)


def break_checkpoint(run, source, stage):
    """Makes one parameter so large that all it gives is not finite, and seals the stage again."""
    folder = run.workdir.folder(stage) / "checkpoint"
    *others, (path, last) = nnx.to_flat_state(load_update(source, run.models.mesh))
    broken = nnx.from_flat_state([*others, (path, last.replace(last.get_value() * 0 + HUGE))])
    info = checkpoint.read_info(folder)
    shutil.rmtree(folder)
    checkpoint.save_checkpoint(folder, info, broken)
    reseal(folder.parent)


def said(run):
    with pytest.raises(FloatingPointError) as error:
        run_stages(run, stages_of(run.config))
    text = str(error.value)
    assert not any(word in text for word in ("larger model", "temperature"))
    return text


@pytest.mark.parametrize("stage", ["feedback", "rl", "evaluate"])
def test_sl_cai_that_gives_nan_is_named_by_whatever_runs_it(copied, stage):
    run = copied(stage)
    break_checkpoint(run, run.models.policy_source("sl_cai"), "sl_train")
    text = said(run)
    folder = run.workdir.folder("sl_train") / "checkpoint"
    assert f"the checkpoint {folder}, which the stage sl_train wrote, gives" in text
    assert "run sl_train again with a lower config.sl_train.learning_rate" in text
    assert "config.rl" not in text


@pytest.mark.parametrize("stage", ["rl", "evaluate"])
def test_a_preference_model_that_gives_nan_is_named(copied, stage):
    run = copied(stage)
    break_checkpoint(run, run.models.preference_source(), "pm_train")
    text = said(run)
    assert "which the stage pm_train wrote, gives" in text
    assert "run pm_train again with a lower config.pm_train.learning_rate" in text


def test_a_base_model_that_gives_nan_is_named(tmp_path):
    folder = write_tiny_model(tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= HUGE
    save_file(weights, folder / "model.safetensors")
    run = open_run(tiny_config(tmp_path / "work", folder, stages="sl_data"))
    text = said(run)
    assert f"the model {folder} gives logits that are NaN or infinite" in text
    assert "learning_rate" not in text


@pytest.mark.parametrize("stage", ["sl_train", "pm_train"])
def test_a_learning_rate_that_breaks_a_model_is_never_done(copied, stage):
    """For a single update too: SL-CAI's fits in one batch."""
    whole = {"sl_train.batch_size": 64} if stage == "sl_train" else {}
    run = copied(stage, **{f"{stage}.learning_rate": 1e30}, **whole)
    with pytest.raises(FloatingPointError, match=rf"config\.{stage}\.learning_rate \(now 1e\+30"):
        run_stages(run, stages_of(run.config))
    assert not run.workdir.folder(stage).exists()


def test_a_learning_rate_that_breaks_rl_is_named(copied):
    rates = {"rl.learning_rate": 1e30, "rl.watch_every": 0}
    run = copied("rl", **rates)
    with pytest.raises(FloatingPointError, match=r"config\.rl\.learning_rate \(now 1e\+30"):
        run_stages(run, stages_of(run.config))
    assert not run.workdir.folder("rl").exists()


def test_batches_that_give_nan_are_kept_beside_the_stage(copied, monkeypatch):
    run = copied("pm_train", **{"training.max_skipped_steps": 0})
    real = pm_train.pair_batches

    def odd(*args):
        for number, batch in enumerate(real(*args)):
            weight = batch["weight"] * (np.nan if number == 1 else 1.0)
            yield batch | {"weight": weight.astype(np.float32)}

    monkeypatch.setattr(pm_train, "pair_batches", odd)
    with pytest.raises(DivergedError, match=r"pm_train: 1 updates.* batches are in ") as error:
        run_stages(run, stages_of(run.config))
    (file,) = run.workdir.path.glob(".pm_train.progress/skipped/*.json")
    assert str(file.parent) in str(error.value)
    row = json.loads(file.read_text(encoding="utf-8"))["rows"][0]
    assert row["first_text"] == run.models.chat.text(row["first"])
    assert row["first"][-1] == run.models.chat.end_of_turn


@pytest.mark.parametrize("std", [0.0, 1e-9])
def test_scores_that_tell_nothing_are_refused_where_they_are_made(std):
    with pytest.raises(ConfigError, match=r"pm_train: scores .*; raise config\.pm_train\.learning"):
        pm_train.check_normalisation("pm_train", 0.0, std, "lower it")
    pm_train.check_normalisation("pm_train", 0.0, 0.1, "lower it")


@pytest.mark.parametrize(
    ("mean", "std"), [(0.0, 1e30), (0.0, np.nan), (0.0, np.inf), (np.nan, 1.0), (np.inf, 1.0)]
)
def test_scores_of_a_broken_model_are_refused_where_they_are_made(mean, std):
    with pytest.raises(DivergedError, match=r"pm_train: scores .* broke the model.*; lower it"):
        pm_train.check_normalisation("pm_train", mean, std, "lower it")


@pytest.mark.parametrize("std", ["0", "0.0", "NaN", "Infinity", "-1"])
def test_a_checkpoint_with_such_a_deviation_is_refused(copied, std):
    run = copied("rl")
    folder = run.workdir.folder("pm_train")
    file = folder / "checkpoint" / "model.json"
    fields = json.loads(file.read_text(encoding="utf-8"))
    text = json.dumps(fields | {"score_std": "HERE"}).replace('"HERE"', std)
    file.write_text(text, encoding="utf-8")
    reseal(folder)
    with pytest.raises(ValueError, match=r"pm_train/checkpoint/model\.json") as error:
        make_reward(run.inputs(next(s for s in stages_of(run.config) if s.name == "rl")))
    assert "learning_rate" not in str(error.value)
