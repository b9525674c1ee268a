"""What the documentation shows is run, with the tiny run of the tests in place of the default."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from documents import PAGES, Fence, fences

pytestmark = pytest.mark.slow
# What get_config("smoke") gives in the pages' snippets: the same stages, on the tiny model.
CONFIG = """
from ml_collections import ConfigDict
from tiny_run import tiny_config
from cai_jax.config import plain

def get_config(preset="laptop"):
    tree = plain(tiny_config({workdir!r}, {model!r}, **{{"mesh.fsdp": 1, "mesh.tensor": 1}}))
    del tree["pretrain"]
    return ConfigDict(tree)
"""


def _of(language: str) -> list[Path]:
    runs = lambda fence: fence.language == language and (fence.runs or language == "python")
    return [page for page in PAGES if any(map(runs, fences(page)))]


def _name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.fixture(scope="module")
def repository(tmp_path_factory, finished, model_folder) -> Path:
    """What a page finds where it stands: the repository's files, and a finished run."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "constitutions", folder / "constitutions")
    (folder / "datasets").symlink_to(ROOT / "datasets")
    (folder / "runs").mkdir()
    (folder / "runs" / "rlaif").symlink_to(finished.workdir.path)
    (folder / "configs").mkdir()
    config = CONFIG.format(workdir=str(folder / "unused"), model=str(model_folder))
    (folder / "configs" / "rlaif.py").write_text(config, encoding="utf-8")
    return folder


def _run(command: list[str], folder: Path) -> str:
    """What a process says, in the folder, on one device."""
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"}
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    environment["PYTHONPATH"] = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.parametrize("page", _of("python"), ids=_name)
def test_python_snippets_run_in_their_order(page, repository, tmp_path):
    """All of a page are one program; lines are those of the page, for errors to name."""
    lines: list[str] = []
    for fence in _fences(page, "python"):
        lines += [""] * (fence.line - len(lines)) + fence.text.splitlines()
    script = tmp_path / f"{page.stem}.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _run([sys.executable, str(script)], repository)


@pytest.mark.parametrize("page", _of("sh"), ids=_name)
def test_commands_that_are_marked_run(page, repository):
    for fence in _fences(page, "sh"):
        if fence.runs:
            _run(["bash", "-euo", "pipefail", "-c", fence.text], repository)


def _fences(page: Path, language: str) -> list[Fence]:
    return [fence for fence in fences(page) if fence.language == language]
