"""A finished run counts as finished only while its files are what was written."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from chromium import check_report, needs_chromium
from commanded import command
from conftest import ROOT
from test_runner import refuse

from cai_jax.config import ConfigError, plain
from cai_jax.data.records import read_records
from cai_jax.data.rows import Sample
from cai_jax.inspect import about, damages
from cai_jax.main import run_config
from cai_jax.models.io.checkpoint import restore_trained
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.provenance import provenance
from cai_jax.stages.report import STAGE as REPORT
from cai_jax.stages.report import summarise
from cai_jax.stages.runner import due_stages, fingerprints, run_stages
from cai_jax.stages.stage import open_run
from cai_jax.storage.sealed import MANIFEST, NotWholeError, sealed_text

SCRIPT = ROOT / "benchmarks" / "bit_flips.py"


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def copied(finished, tmp_path):
    """The finished run once more, to be damaged."""
    shutil.copytree(finished.workdir.path, tmp_path / "copied")
    return open_run(replace(finished.config, workdir=str(tmp_path / "copied")))


def due(run, **changes):
    run = open_run(replace(run.config, **changes))
    stages = stages_of(run.config)
    return set(due_stages(run, stages, fingerprints(run, stages)))


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_nothing_is_due_in_a_finished_run(copied):
    assert due(copied) == set()


def delete(folder):
    shutil.rmtree(folder / "checkpoint")


def truncate(folder):
    file = largest(folder / "checkpoint")
    file.write_bytes(file.read_bytes()[:-1])


def swap(folder):
    shutil.rmtree(folder / "checkpoint")
    shutil.copytree(folder.parent / "sl_train" / "checkpoint", folder / "checkpoint")


def leave_the_manifest_alone(folder):
    for path in folder.iterdir():
        if path.name != MANIFEST:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def delete_the_manifest(folder):
    (folder / MANIFEST).unlink()


@pytest.mark.parametrize(
    "damage", [delete, truncate, swap, leave_the_manifest_alone, delete_the_manifest]
)
def test_a_damaged_stage_is_not_up_to_date(copied, damage):
    damage(copied.workdir.folder("rl"))
    assert due(copied) == {"rl"}
    with pytest.raises(ConfigError, match=r"stage evaluate needs rl, .* or is damaged; add it"):
        due(copied, stages=("evaluate",))
    with pytest.raises(AssertionError, match="rl was run again"):
        run_stages(copied, refuse(stages_of(copied.config)))


def test_a_kill_inside_the_replacement_is_repaired_at_the_next_start(copied):
    rl, evaluate = map(copied.workdir.folder, ("rl", "evaluate"))
    rl.rename(rl.with_name(".rl.old"))  # killed before the new one came
    shutil.copytree(evaluate, evaluate.with_name(".evaluate.old"))
    for path in evaluate.with_name(".evaluate.old").glob("[!m]*"):  # killed while it was deleted
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    with copied.workdir.owned():
        assert due(copied) == set()
    assert not list(copied.workdir.path.glob(".*.old"))


def test_a_damaged_stage_is_not_taken_from_an_earlier_run_or_the_store(copied, tmp_path):
    store = tmp_path / "stages"
    found = fingerprints(copied, stages_of(copied.config))
    kept = store / f"sl_data-{found['sl_data']}"
    shutil.copytree(copied.workdir.folder("sl_data"), kept)
    for folder in (kept, copied.workdir.folder("sl_data")):
        file = largest(folder / "responses")
        file.write_bytes(file.read_bytes()[::-1])
    changes = {"workdir": str(tmp_path / "new"), "stages": ("sl_data",)}
    for source in ({"stage_store": str(store)}, {"reuse_from": str(copied.workdir.path)}):
        run = open_run(replace(copied.config, **changes, **source))
        with pytest.raises(AssertionError, match="sl_data was run again"):
            run_stages(run, refuse(stages_of(run.config)))


def test_readers_refuse_what_is_not_what_was_written(copied):
    checkpoint = copied.models.checkpoint("rl")
    for folder, read in (
        (checkpoint, lambda: copied.models.source(str(checkpoint))),
        (checkpoint, lambda: restore_trained(checkpoint, None)),
        (
            copied.workdir.folder("evaluate") / "samples",
            lambda: read_records(copied.workdir.folder("evaluate") / "samples", Sample),
        ),
    ):
        file = largest(folder)
        held = file.read_bytes()
        file.write_bytes(bytes([held[0] ^ 1]) + held[1:])
        with pytest.raises(NotWholeError, match=str(file)):
            read()
        file.write_bytes(held)


def test_one_bit_in_artifacts_of_every_kind_is_noticed_or_harmless(copied):
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(SCRIPT), str(copied.workdir.path), "66"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(done.stdout.splitlines()) == 2 + 11 + 1
    assert "| all | 66 |" in done.stdout
    assert done.stdout.rstrip().endswith("| 0 |")


def test_the_config_is_written_only_where_it_differs(copied):
    run, file = copied, copied.workdir.path / "config.json"
    run.workdir.claim(run.config)
    written = file.stat().st_ino
    run.workdir.claim(run.config)
    assert file.stat().st_ino == written
    text = file.read_text()
    file.write_text(text.replace('"seed": 3', '"seed": 2'))
    with pytest.raises(ConfigError, match=r"config.json.*is damaged"):
        run.workdir.claim(run.config)


def test_secrets_of_a_config_are_not_written_and_the_run_goes_on(tmp_path, finished, monkeypatch):
    key, word = "hf_" + "AbCd" * 8, "qwertzuiop"
    monkeypatch.setenv("MY_API_KEY", word)
    given = replace(
        finished.config,
        workdir=str(tmp_path / "run"),
        model=replace(finished.config.model, system_prompt=f"Be {word}, {key}."),
    )
    run, stages = open_run(given), stages_of(given)
    run.workdir.claim(given)
    written = (run.workdir.path / "config.json").read_text()
    found = fingerprints(run, stages)
    manifest = sealed_text(provenance(run, stages[0], found))
    for shown in (written, manifest, json.dumps(plain(given))):
        assert '"Be ***, ***."' in shown
        assert word not in shown
        assert key not in shown
    assert fingerprints(run, stages) != fingerprints(finished, stages)  # of what it is
    run.workdir.claim(given)
    monkeypatch.delenv("MY_API_KEY")  # a later shell need not have it
    run.workdir.claim(given)
    assert (run.workdir.path / "config.json").read_text() == written
    other = replace(given, model=replace(given.model, system_prompt="Be kind."))
    with pytest.raises(
        ConfigError, match=r"config.model.system_prompt: 'Be \*\*\*, \*\*\*\.' there"
    ):
        run.workdir.claim(other)


@pytest.fixture
def read_only(finished, on_read_only_disk):
    """The finished run on a disk that nobody can write to."""
    place = on_read_only_disk(finished.workdir.path)
    return open_run(replace(finished.config, workdir=str(place)))


def test_a_finished_run_on_a_read_only_disk_is_up_to_date_and_can_be_read(
    read_only, tmp_path, caplog
):
    workdir, out = read_only.workdir.path, tmp_path / "why.md"
    with pytest.raises(OSError, match="Read-only file system"):
        (workdir / "a").touch()
    with caplog.at_level("INFO"):
        run_config(read_only.config)
    for stage in stages_of(read_only.config):
        assert f"{stage.name}: up to date" in caplog.text
    assert not list(damages(workdir))
    assert any("stage report, fingerprint" in line for line in about(workdir))
    done = command("constitution", "explain", workdir, f"--out={out}")
    assert done.returncode == 0, done.stderr
    assert out.read_text(encoding="utf-8")


def test_a_stage_that_is_due_on_a_read_only_disk_is_one_sentence(read_only):
    changed = replace(read_only.config.report, transcripts=3)
    with pytest.raises(OSError, match=r"read-only file system; allow it, or name another folder"):
        run_config(replace(read_only.config, report=changed, rerun_changed=True))


def test_the_summary_counts_rows_that_were_left_out(finished):
    run = open_run(finished.config)
    run.data.left_out["twins"] = {"one", "other"}
    assert summarise(run.inputs(REPORT)).left_out == {"twins": 2}


def test_inspect_tells_what_made_an_artifact(copied):
    checkpoint = copied.models.checkpoint("rl")
    told = "\n".join(about(checkpoint))
    constitution, config = copied.data.constitution, copied.config
    for words in (
        "a low-rank update of rank 8 of a policy model, trained from ",
        "stage rl, fingerprint ",
        f"seed: {config.seed}",
        f"constitution: {constitution.name}, SHA-256 {constitution.content_hash()}",
        f"model: {config.model.source}, SHA-256 of its files",
        "packages: cai_jax ",
        f"config.sl_data.red_team_prompts: {config.sl_data.red_team_prompts} (default: 24)",
        f"from: stage sl_train, fingerprint {copied.workdir.fingerprint('sl_train')}, in ",
    ):
        assert words in told
    assert not list(damages(checkpoint))
    rows = copied.workdir.folder("sl_data") / "rows.json"
    rows.write_text("[]")
    assert next(damages(checkpoint)).startswith(f"{rows}: has 2 bytes")
    whole_run = "\n".join(about(copied.workdir.path))
    assert all(f"stage {stage.name}, fingerprint" in whole_run for stage in stages_of(config))
    with pytest.raises(ValueError, match="no artifact of cai_jax"):
        list(about(ROOT / "tests"))


@needs_chromium
def test_its_report_opens_in_a_browser(finished):
    check_report(finished.workdir.folder("report") / "index.html")
