"""Pages from the folders of runs: of one, or of several side by side."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cai_jax.commands.files import check_out, check_unsealed, write_whole
from cai_jax.config import differences, naming
from cai_jax.data.records import read_records
from cai_jax.data.rows import Sample
from cai_jax.report.compare import Entry, render_comparison
from cai_jax.report.page import Report
from cai_jax.report.summary import read_summary
from cai_jax.stages.engines import load_function
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.provenance import code_sha256
from cai_jax.stages.report import PAGE, STAGE, SUMMARY, collect, summary_of, write_report
from cai_jax.stages.stage import Run, open_run
from cai_jax.stages.workdir import CONFIG, read_config
from cai_jax.storage.files import partial_of, put_in_place, resolved
from cai_jax.storage.sealed import FILES, MANIFEST, check_whole, read_sealed, seal_folder

COMPARISON = "comparison.html"
log = logging.getLogger("cai_jax")


def runs_in(folder: Path) -> list[Path]:
    """The run of a folder, or the finished ones of a sweep."""
    found = [file.parent for file in sorted(folder.glob(f"runs/*/*/run/{CONFIG}"))]
    return [path for path in found if (path / STAGE.name / SUMMARY).exists()] or [folder]


def side_by_side(folders: list[Path], out: str | None) -> None:
    """Writes a page that compares runs.

    Args:
      folders: their workdirs.
      out: HTML file; None: ``comparison.html``.

    Raises:
      ValueError: there is one alone, or one is not finished.
    """
    if len(folders) < 2:
        raise ValueError(f"--runs: {folders[0]} holds no other run to compare it with; name two")
    page = resolved(out or COMPARISON)
    check_out(page, inputs=[folder / CONFIG for folder in folders])
    entries, names = [], names_of(folders)
    for folder, name in zip(folders, names, strict=True):
        summary = folder / STAGE.name / SUMMARY
        if not summary.exists():
            raise ValueError(f"{folder}: is no finished run: it has no {STAGE.name}/{SUMMARY}")
        check_whole(summary.parent)
        samples = read_records(folder / "evaluate" / "samples", Sample)
        entries.append(Entry(name, read_summary(summary), samples))
    configs = [entry.summary.config for entry in entries]
    fields = dict.fromkeys(f for c in configs[1:] for f, _, _ in differences(configs[0], c))
    for told in ("config.workdir", "config.seed"):
        fields.pop(told, None)
    settings = [(field, [str(_value(config, field)) for config in configs]) for field in fields]
    oracles = {config["evaluate"]["oracle"] for config in configs}
    named = oracles.pop() if len(oracles) == 1 else ""
    oracle = load_function(named, "config.evaluate.oracle") if named else None
    write_whole(page, render_comparison(entries, oracle, settings))
    log.info("comparison: %s", page)


def names_of(folders: list[Path]) -> list[str]:
    """What tells the paths from each other."""
    parts = [folder.parts for folder in folders]
    while len({p[0] for p in parts if p}) == 1 and all(len(p) > 1 for p in parts):
        parts = [p[1:] for p in parts]
    while len({p[-1] for p in parts}) == 1 and all(len(p) > 1 for p in parts):
        parts = [p[:-1] for p in parts]
    return ["/".join(p) for p in parts]


def _value(config: Mapping[str, Any], field: str) -> Any:
    """What a config says of a field; None where it has none."""
    value: Any = config
    for name in field.split(".")[1:]:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def make_again(folder: Path, elsewhere: str | None) -> None:
    """Writes the report of a run, from its folder.

    Args:
      folder: its workdir.
      elsewhere: folder of the report; None: in the place of a finished run's own.

    Raises:
      ValueError: the run is not finished, and no other folder is named.
    """
    run, done = open_left(folder)
    if STAGE.name in done:
        summary = read_summary(folder / STAGE.name / SUMMARY)
        report = collect(run, summary, [name for name in done if name != STAGE.name])
    else:
        left = [stage.name for stage in stages_of(run.config) if stage.name not in done]
        report = collect(run, summary_of(run, done), done, left)
    out = resolved(elsewhere) if elsewhere else folder / STAGE.name
    if elsewhere:
        with naming("--out"):
            check_unsealed(out)
        out.mkdir(parents=True, exist_ok=True)
        write_report(out, report)
    elif STAGE.name in done:
        with run.workdir.owned():
            replace_report(run, report)
    else:
        raise ValueError(f"{folder}: is not finished; name a folder for its report in --out")
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
