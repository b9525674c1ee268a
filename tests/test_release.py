"""What is released: an sdist and a wheel that brings the folders that configs name files of."""

import filecmp
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import xla_flags
from clean_environment import VARIABLES, clean_environment
from conftest import ROOT

from cai_jax import shipped

CLEAN = VARIABLES | {"XLA_FLAGS": xla_flags.ONCE}


def call(*command, cwd=ROOT, code=0) -> str:
    """What a command says, which ends as it should."""
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=CLEAN, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == code, said[-3000:]
    return said


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The sdist, and the wheel that is built from it."""
    out = tmp_path_factory.mktemp("dist")
    call(sys.executable, "-m", "build", "--no-isolation", f"--outdir={out}", ".")
    return out


@pytest.fixture(scope="module")
def python(dist, tmp_path_factory) -> Path:
    """The interpreter of a new environment that has the wheel, and what it requires."""
    python = clean_environment(tmp_path_factory.mktemp("new"))
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    call(*pip, "--no-index", "--no-deps", *dist.glob("*.whl"))
    return python


@pytest.fixture(scope="module")
def working_folder(python, tmp_path_factory) -> Path:
    """An empty folder, in which somebody has run ``cai-jax init``."""
    folder = tmp_path_factory.mktemp("work")
    said = call(python.parent / "cai-jax", "init", cwd=folder)
    assert "next: python -m cai_jax.main --config=configs/microworld.py" in said
    return folder


def test_indexes_would_take_both(dist):
    assert len(list(dist.iterdir())) == 2
    call(sys.executable, "-m", "twine", "check", "--strict", *dist.iterdir())


def test_the_wheel_holds_the_package_and_its_folders_alone(dist):
    (wheel,) = dist.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"cai_jax"}
    assert "cai_jax/report/page.html" in names
    assert {name.split("/")[2] for name in names if name.startswith("cai_jax/share/")} == set(
        shipped.FOLDERS
    )


def test_init_copies_all_that_a_checkout_has(working_folder):
    listed = call("git", "ls-files", *shipped.FOLDERS).splitlines()
    copied = [f for name in shipped.FOLDERS for f in (working_folder / name).rglob("*")]
    made = [str(f.relative_to(working_folder)) for f in copied if f.is_file()]
    made = [name for name in made if "__pycache__" not in name]  # of configs that were run
    assert sorted(made) == sorted(listed)
    assert filecmp.cmpfiles(ROOT, working_folder, listed, shallow=False) == (listed, [], [])


def test_init_replaces_nothing(python, tmp_path):
    (tmp_path / "datasets").mkdir()
    said = call(python, "-m", "cai_jax.init", tmp_path, cwd=tmp_path, code=1)
    assert f"error: {tmp_path / 'datasets'}: is there already" in said
    assert [path.name for path in tmp_path.iterdir()] == ["datasets"]


@pytest.mark.parametrize(
    "command",
    [
        ["cai_jax.main", "--config=configs/rlaif.py"],
        ["cai_jax.constitution", "lint", "constitutions/harmless.yaml"],
    ],
)
def test_without_init_the_error_says_so(python, tmp_path, command):
    assert "run cai-jax init" in call(python, "-m", *command, cwd=tmp_path, code=1)


def test_constitutions_can_be_worked_on(python, working_folder):
    file = "constitutions/harmless.yaml"
    call(python, "-m", "cai_jax.constitution", "lint", file, cwd=working_folder)


@pytest.mark.slow
@pytest.mark.parametrize("config", ["microworld", "rlaif"])
def test_runs_start_in_the_folder(python, working_folder, model_folder, config):
    """Both of the README's runs, made small: what they read is found, and their stages run."""
    small = {
        "microworld": [
            *("stages=pretrain", "pretrain.options.dialogues=200.0", "pretrain.num_layers=2"),
            *("pretrain.d_model=32", "pretrain.d_ff=48", "pretrain.warmup_steps=2"),
        ],
        "rlaif": [
            *("stages=sl_data", f"model.source={model_folder}", "warm_up.source="),
            *("sl_data.red_team_prompts=8", "sl_data.helpful_prompts=4", "sl_data.rounds=1"),
            *("generation.response_tokens=16", "generation.critique_tokens=16"),
            "generation.context_tokens=384",
        ],
    }[config]
    flags = [f"--config.{change}" for change in small]
    said = call(
        *(python, "-m", "cai_jax.main", f"--config=configs/{config}.py"), *flags, cwd=working_folder
    )
    assert "done in" in said
    assert (working_folder / "runs" / config).is_dir()
