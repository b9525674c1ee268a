"""What compile ahead lists is what runs: functions, shapes, dtypes, shardings, static arguments."""

import importlib
import importlib.util
import pkgutil
from collections import Counter
from pathlib import Path

import jax
import pytest
from conftest import ROOT
from program_spy import check_listed, listed
from tiny_run import run_all, tiny_config

import cai_jax
from cai_jax.commands.verbs import verbs
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.stage import open_run

FULL = {"trained_layers": 0, "lora.rank": 0}
ONE_DEVICE = {
    "mesh.fsdp": 1,
    "mesh.tensor": 1,
    "feedback.method": "chain_of_thought",
    "feedback.few_shots": 0,
    "feedback.prompts": 12,  # of a random model, few pairs of replies parse
    "second_model.prompts": 12,
    "generation.top_p": 0.9,
    "sl_data.critique": False,
    **{f"{stage}.{name}": value for stage in ("sl_train", "rl") for name, value in FULL.items()},
}


def compare(run, calls, devices):
    ahead = open_run(run.config, devices, ahead=True)
    for stage in stages_of(run.config):
        check_listed(calls.by_stage[stage.name], listed(ahead, stage))
    assert len(set().union(*calls.by_stage.values())) > 12


def test_eight_devices_run_what_compile_ahead_lists(finished_calls, monkeypatch):
    monkeypatch.chdir(ROOT)
    compare(*finished_calls, None)


@pytest.mark.parametrize("changes", [ONE_DEVICE], ids=["all_parameters"])
def test_one_device_runs_what_compile_ahead_lists(model_folder, tmp_path, monkeypatch, changes):
    """And nothing of ours is compiled that is not listed, or more often than it is listed."""
    monkeypatch.chdir(ROOT)
    jax.clear_caches()
    devices = jax.devices()[:1]
    run, calls = run_all(tiny_config(tmp_path / "work", model_folder, **changes), devices)
    compare(run, calls, devices)
    by_stage = calls.by_stage
    names = Counter(name for name, *_ in set().union(*by_stage.values()))
    # What makes parameters and states holds seeds and is jitted anew by each stage.
    anew = {"initialize", "initial_state"}
    names |= Counter(name for found in by_stage.values() for name, *_ in found if name in anew)
    compiled = {name: calls.compiled[name] for name in jitted_functions() | set(names)}
    assert compiled == {name: names[name] for name in compiled}


def jitted_functions() -> set[str]:
    """Names of the jitted functions at the top of our modules."""
    # They start stages, and each defines flags of its own.
    commands = {*verbs().values(), *verbs("cai_jax.commands.workshop").values()}
    found = set()
    for module in pkgutil.walk_packages(cai_jax.__path__, "cai_jax."):
        file = Path(importlib.util.find_spec(module.name).origin)
        if module.name.endswith("__main__") or file in commands:
            continue
        loaded = importlib.import_module(module.name)
        for name, value in vars(loaded).items():
            if hasattr(value, "trace") and hasattr(value, "lower"):
                found.add(name)
    assert {"train_step", "fill", "decode", "packed_features", "prepare", "update"} <= found
    return found
