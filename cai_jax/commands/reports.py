"""Pages from the folders of runs: of one, or of several side by side."""

import logging
import shutil
from dataclasses import replace
from pathlib import Path

from absl import flags

from cai_jax.config import naming
from cai_jax.report.page import Report
from cai_jax.report.summary import read_summary
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.provenance import code_sha256
from cai_jax.stages.report import PAGE, STAGE, SUMMARY, collect, summary_of, write_report
from cai_jax.stages.stage import Run, open_run
from cai_jax.stages.workdir import CONFIG, read_config
from cai_jax.storage.files import partial_of, put_in_place, resolved, write_whole
from cai_jax.storage.sealed import FILES, MANIFEST, read_sealed, seal_folder

WORKDIR = flags.DEFINE_string("workdir", None, "of a run, whose report is made again")
OUT = flags.DEFINE_string("out", None, "folder to write the report to, in place of the run's")
log = logging.getLogger("cai_jax")


def main() -> None:
    """Makes the report again."""
    if not WORKDIR.value:
        raise ValueError("--workdir: which run? name its folder")
    folder = resolved(WORKDIR.value)
    run, done = open_left(folder)
    if STAGE.name in done:
        summary = read_summary(folder / STAGE.name / SUMMARY)
        report = collect(run, summary, [name for name in done if name != STAGE.name])
    else:
        left = [stage.name for stage in stages_of(run.config) if stage.name not in done]
        report = collect(run, summary_of(run, done), done, left)
    out = resolved(OUT.value) if OUT.value else folder / STAGE.name
    if OUT.value or STAGE.name not in done:
        out.mkdir(parents=True, exist_ok=True)
        write_report(out, report)
    else:
        with run.workdir.owned():
            replace_report(run, report)
    log.info("report: %s", out / PAGE)


def open_left(folder: Path) -> tuple[Run, list[str]]:
    """A run as its folder tells of it, under the constitution of that time; what is finished of it.

    Raises:
      ValueError: the folder holds no run, or one that this version cannot read.
    """
    file = folder / CONFIG
    if not file.exists():
        raise ValueError(f"{folder}: no {CONFIG}; name the workdir of a run")
    with naming(str(file)):
        config = read_config(file)
    run = open_run(replace(config, workdir=str(folder)))
    done = [s.name for s in stages_of(config) if run.workdir.fingerprint(s.name) is not None]
    if not done:
        raise ValueError(f"{folder}: no stage is finished; give its config to cai_jax.main first")
    kept = folder / done[-1]
    groups = {
        group: str(kept / f"constitution-{group}.yaml") for group in config.constitution.groups
    }
    told = replace(config.constitution, path=str(kept / "constitution.yaml"), groups=groups)
    return open_run(replace(config, workdir=str(folder), constitution=told)), done


def replace_report(run: Run, report: Report) -> None:
    """Puts the report of a finished run in the place of the one that is there."""
    folder = run.workdir.folder(STAGE.name)
    manifest, partial = read_sealed(folder / MANIFEST), partial_of(folder)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for kept in (*folder.glob("*.yaml"), folder / "rows.json"):
        shutil.copy(kept, partial)
    write_report(partial, report)
    manifest.pop(FILES)
    seal_folder(partial, manifest | {"code_sha256": code_sha256()})
    put_in_place(folder, partial)
    page = run.workdir.path / PAGE
    if page.exists():
        write_whole(page, (folder / PAGE).read_text(encoding="utf-8"))
