"""A stage that is cut off anywhere goes on, and ends as one that nobody touched."""

import logging

import pytest
from conftest import ROOT
from same_artifacts import differences
from tiny_run import tiny_config

from cai_jax.generation import engine
from cai_jax.learning import loop as learning
from cai_jax.rl import loop as rl
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import run_stages
from cai_jax.stages.stage import open_run
from cai_jax.stages.workdir import link_folder


class KilledError(BaseException):
    pass


# By stage: what it calls again and again, and how often it may before each kill.
CUTS = {
    "sl_data": (engine._Rows, "advance", (0, 1, 2)),
    "pm_train": (learning, "put_like", (1, 1)),
    "rl": (rl, "learn", (1, 0)),
}


@pytest.mark.parametrize("name", CUTS)
def test_a_stage_that_is_cut_off_ends_as_if_it_were_not(
    finished, model_folder, tmp_path, monkeypatch, caplog, name
):
    monkeypatch.chdir(ROOT)
    order = [stage.name for stage in stages_of(finished.config)]
    for stage in order[: order.index(name)]:
        link_folder(finished.workdir.folder(stage), tmp_path / stage)
    config = tiny_config(tmp_path, model_folder, stages=name, **{"resume.every_steps": 1})
    stages = stages_of(config)

    def start(calls=None):
        owner, attribute, _ = CUTS[name]
        made, real = [], getattr(owner, attribute)

        def limited(*args, **kwargs):
            if len(made) == calls:
                raise KilledError
            made.append(1)
            return real(*args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(owner, attribute, limited)
            run_stages(open_run(config), stages)
        return len(made)

    caplog.set_level(logging.INFO, "cai_jax")
    monkeypatch.setattr(logging.getLogger("cai_jax"), "propagate", True)
    for calls in CUTS[name][2]:
        with pytest.raises(KilledError):
            start(calls)
    assert "stages: 0 done, 1 left" in caplog.text
    start()
    assert f"{name}: goes on: " in caplog.text
    assert differences(finished.workdir.folder(name), tmp_path / name) == []
    assert not list(tmp_path.glob(".*"))
