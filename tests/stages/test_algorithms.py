"""Every algorithm trains the tiny policy, on eight devices, and leaves what evaluation reads."""

import json

import jax
import numpy as np
import pytest
from conftest import ROOT
from flax import nnx
from program_spy import check_listed, listed, spying
from tiny_run import tiny_config

from cai_jax.rl.registry import ALGORITHMS
from cai_jax.stages import rl
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import fingerprints
from cai_jax.stages.stage import open_run

GROUPS = {"rl.samples_per_prompt": 4, "rl.batch_size": 16, "rl.helpful_fraction": 0.5}
DIRECT = {"rl.direct.batch_size": 4, "rl.direct.epochs": 2, "rl.direct.sequence_length": 256}
CHANGES = {"rloo": GROUPS, "grpo": GROUPS, "dpo": DIRECT, "ipo": DIRECT}
FULL = {"rl.lora.rank": 0, "rl.trained_layers": 0}


# Low-rank or all parameters: each loop both ways.
@pytest.mark.parametrize(
    ("algorithm", "more"), [("rloo", FULL), ("grpo", {}), ("dpo", {}), ("ipo", FULL)], ids=str
)
def test_an_algorithm_runs_what_compile_ahead_lists(
    finished, model_folder, tmp_path, monkeypatch, algorithm, more
):
    monkeypatch.chdir(ROOT)
    changes = {"rl.algorithm": algorithm, **CHANGES[algorithm], **more}
    run = open_run(tiny_config(finished.workdir.path, model_folder, **changes))
    with spying([rl.STAGE]) as (calls, (stage,)):
        inputs = run.inputs(stage, progress=tmp_path / "progress")
        outcome = stage.execute(inputs, tmp_path)
    ahead = open_run(run.config, ahead=True)
    check_listed(calls.by_stage["rl"], listed(ahead, rl.STAGE))
    history = json.loads((tmp_path / "history.json").read_text(encoding="utf-8"))
    assert len(history) >= 2
    assert all(np.isfinite(value) for row in history for value in row.values())
    assert outcome.tokens > 0
    # The checkpoint is a policy like any other, and has learned something.
    source = run.models.policy_source("rl_cai")
    trained = source.checkpoints[-1][1]
    policy = run.models.policy(source.below.trained(tmp_path / "checkpoint", trained))
    assert all(np.isfinite(x).all() for x in map(np.asarray, jax.tree.leaves(policy.params)))
    before = run.models.policy(run.models.policy_source("sl_cai"))
    same = nnx.to_flat_state(policy.params), dict(nnx.to_flat_state(before.params))
    moved = [p for p, v in same[0] if p not in same[1] or differ(v, same[1][p])]
    assert moved


def differ(one, other) -> bool:
    return bool(np.any(np.asarray(one.get_value()) != np.asarray(other.get_value())))


def test_every_algorithm_is_tried():
    assert set(CHANGES) == set(ALGORITHMS) - {"ppo"}  # which the whole run is of


def test_another_algorithm_redoes_rl_and_what_follows(finished, model_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    changed = tiny_config(finished.workdir.path, model_folder, **{"rl.algorithm": "dpo"})
    one, other = (
        fingerprints(open_run(config), stages_of(config)) for config in (finished.config, changed)
    )
    assert {name for name in one if one[name] != other[name]} == {"rl", "evaluate", "report"}
