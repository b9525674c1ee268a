"""The page of a run: it grows stage by stage, harms nothing, and is made again from the folder."""

import shutil
from dataclasses import replace

import pytest
from commanded import command
from conftest import ROOT

from cai_jax.inspect import damages
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.report import grow
from cai_jax.stages.runner import fingerprints
from cai_jax.stages.stage import open_run


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """The finished run in a folder of its own."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(finished.workdir.path, tmp_path / "run")
    return open_run(replace(finished.config, workdir=str(tmp_path / "run")))


def test_the_page_shows_what_is_done_and_what_is_to_come(copied):
    found, page = fingerprints(copied, stages_of(copied.config)), copied.workdir.path / "index.html"
    for first in ("evaluate", "rl"):
        for name in [*found][[*found].index(first) :]:
            shutil.rmtree(copied.workdir.folder(name), ignore_errors=True)
        grow(copied, found)
        text = page.read_text(encoding="utf-8")
        assert text.split("To come: ")[1].startswith(f"{first}, ")
        assert "Labels of the feedback model" in text
        assert '<figure id="figure-audit">' in text


def test_the_page_of_a_finished_run_is_its_report(copied):
    grow(copied, fingerprints(copied, stages_of(copied.config)))
    page = copied.workdir.path / "index.html"
    assert page.read_bytes() == (copied.workdir.folder("report") / "index.html").read_bytes()


def test_a_page_that_cannot_be_written_harms_nothing(copied, caplog):
    (copied.workdir.path / "index.html").mkdir()
    grow(copied, fingerprints(copied, stages_of(copied.config)))
    assert "index.html could not be written" in caplog.text


def test_the_report_is_made_again_from_the_folder_alone(copied, tmp_path):
    folder = copied.workdir.folder("report")
    before = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    done = command("report", f"--workdir={copied.workdir.path}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    after = {p.name: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    for name in ("manifest.json", "index.html"):  # where the run lies is another place
        before.pop(name), after.pop(name)
    assert after == before
    assert not [*damages(folder)]


def test_what_is_no_run_is_one_sentence(tmp_path):
    done = command("report", f"--workdir={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        f"error: {tmp_path}: no config.json; name the workdir of a run"
    )
