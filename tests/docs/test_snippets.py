"""What the documentation shows is run, with the tiny run of the tests in place of the default."""

import gzip
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import xla_flags
from conftest import ROOT
from documents import PAGES, Fence, fences
from tiny_run import tiny_config

from cai_jax.config import plain
from cai_jax.data.readers import read_pairs

pytestmark = pytest.mark.slow
CONFIG = (
    "from ml_collections import ConfigDict\n\nget_config = lambda preset: ConfigDict({tree!r})\n"
)


def _shown(page: Path) -> list[Fence]:
    """What is to be run of a page."""
    return [fence for fence in fences(page) if fence.language == "python" or fence.runs]


@pytest.fixture(scope="module")
def repository(tmp_path_factory, finished, model_folder) -> Path:
    """What a page finds where it stands: the repository's files, and a finished run."""
    folder = tmp_path_factory.mktemp("pages")
    shutil.copytree(ROOT / "constitutions", folder / "constitutions")
    (folder / "datasets").symlink_to(ROOT / "datasets")
    (folder / "runs").mkdir()
    (folder / "runs" / "rlaif").symlink_to(finished.workdir.path)
    _write_hh(folder / "hh")
    (folder / "configs").mkdir()
    # The preset of the pages' snippets has the same stages here, on the tiny model and one device.
    mesh = {"mesh.fsdp": 1, "mesh.tensor": 1}
    tree = plain(tiny_config(folder / "unused", model_folder, **mesh))
    del tree["pretrain"], tree["stages"]
    config = CONFIG.format(tree=tree)
    (folder / "configs" / "rlaif.py").write_text(config, encoding="utf-8")
    return folder


def _write_hh(folder: Path) -> None:
    """Files of pairs as hh-rlhf has them, with our texts."""
    for part, file in (("helpful", "helpfulness"), ("harmless", "harmlessness")):
        pairs = read_pairs(ROOT / "datasets" / f"{file}_pairs.jsonl")
        prompt = lambda pair: f"\n\nHuman: {pair.messages[-1].text}\n\nAssistant: "
        rows = [
            {"chosen": prompt(pair) + pair.chosen, "rejected": prompt(pair) + pair.rejected}
            for pair in pairs
        ]
        for name in ("train", "test"):
            out = folder / f"{part}-base" / f"{name}.jsonl.gz"
            out.parent.mkdir(parents=True, exist_ok=True)
            with gzip.open(out, "wt", encoding="utf-8") as lines:
                lines.writelines(json.dumps(row) + "\n" for row in rows)


def _run(command: list[str], folder: Path) -> str:
    """What a process says, in the folder, on one device."""
    environment = os.environ | {"XLA_FLAGS": xla_flags.ONCE, "PYTHONPATH": str(ROOT)}
    environment["PATH"] = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.mark.parametrize(
    "page", filter(_shown, PAGES), ids=lambda page: str(page.relative_to(ROOT))
)
def test_what_a_page_shows_runs(page, repository, tmp_path):
    """Its commands, and then its snippets, which are one program with the page's line numbers."""
    lines: list[str] = []
    for fence in _shown(page):
        if fence.runs:
            _run(["bash", "-euo", "pipefail", "-c", fence.text], repository)
        else:
            lines += [""] * (fence.line - len(lines)) + fence.text.splitlines()
    script = tmp_path / f"page_{page.stem}.py"  # TensorFlow looks for a module "python"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _run([sys.executable, str(script)], repository)
