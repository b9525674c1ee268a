"""The page that shows a run, its figures and its summary.json; all from files alone."""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cai_jax.config import Config, differences, plain, warmed_up
from cai_jax.constitution.schema import Constitution
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Revision, Sample
from cai_jax.evaluation.measure import Evaluation
from cai_jax.feedback.registry import LABELERS
from cai_jax.parallel.hosts import is_main, write_text
from cai_jax.prompts.messages import Dialogue
from cai_jax.reading import read_json
from cai_jax.report.figures import drawings
from cai_jax.report.page import Report, render_page
from cai_jax.report.summary import ConstitutionVersion, StageTime, Summary, Supervision
from cai_jax.report.transcripts import Transcript, of_labels, of_replies, of_revisions
from cai_jax.stages.data import SHOWN_PROMPTS
from cai_jax.stages.evaluate import compared_policies
from cai_jax.stages.models import POLICIES
from cai_jax.stages.provenance import versions
from cai_jax.stages.stage import Inputs, Outcome, Run, Stage
from cai_jax.storage.files import write_whole
from cai_jax.storage.sealed import check_whole

PAGE, SUMMARY, FIGURES = "index.html", "summary.json", "figures"
MEASURED = (
    "sl_data",
    "sl_train",
    "red_team",
    "feedback",
    "pm_train",
    "second_model",
    "rl",
    "evaluate",
)
log = logging.getLogger("cai_jax")


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Writes index.html, summary.json and the figures."""
    summary = summarise(inputs)
    if is_main():
        write_report(folder, collect(inputs.whole_run, summary, _there(inputs)))
    return Outcome({}, 0)


def write_report(folder: Path, report: Report) -> None:
    """Writes the page, what it is made of, and the figures as PNG and JSON."""
    write_text(folder / PAGE, render_page(report))
    write_text(folder / SUMMARY, json.dumps(asdict(report.summary), indent=2) + "\n")
    (folder / FIGURES).mkdir(exist_ok=True)
    for drawing in report.drawings:
        (folder / FIGURES / f"{drawing.name}.png").write_bytes(drawing.png)
        write_text(folder / FIGURES / f"{drawing.name}.json", drawing.data)


def grow(run: Run, found: Mapping[str, str]) -> None:
    """Writes the page at the top of the workdir, of a run as far as it has come.

    A run is worth more than a page: what goes wrong here is one line in the log.

    Args:
      run: that goes on.
      found: fingerprints of all its stages; those are done whose folders have them.
    """
    if not is_main():
        return
    try:
        done = [name for name in found if run.workdir.fingerprint(name) == found[name]]
        if STAGE.name in done:
            text = (run.workdir.folder(STAGE.name) / PAGE).read_text(encoding="utf-8")
        else:
            left = [name for name in found if name in run.config.stages and name not in done]
            text = render_page(collect(run, summary_of(run, done), done, left))
        page = run.workdir.path / PAGE
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            write_whole(page, text)
    except Exception as error:
        log.warning("%s could not be written: %s", run.workdir.path / PAGE, error)


def collect(run: Run, summary: Summary, done: Iterable[str], left: Sequence[str] = ()) -> Report:
    """What a page tells of a run, from the folders of the stages that are finished."""
    done, found = set(done), list[Transcript]()
    constitution, second = run.data.constitution, summary.second_model is not None
    samples = list[Sample]()
    if "evaluate" in done:
        samples = read_records(_artifact(run, "evaluate") / "samples", Sample)
        found += of_replies(samples, summary.policies, second)
    if "sl_data" in done:
        folder = _artifact(run, "sl_data")
        first, later = (read_records(folder / n, Revision) for n in ("responses", "revisions"))
        found += of_revisions([*first, *later], constitution)
    if "feedback" in done:
        folder = _artifact(run, "feedback") / "comparisons"
        for group, theirs in run.data.groups.items():
            found += of_labels(read_records(folder / group, Comparison), theirs, group)
    history = read_json(_artifact(run, "rl") / "history.json") if "rl" in done else []
    texts = {p.id: p.critique_request for p in constitution.critique_revision}
    for theirs in run.data.groups.values():
        texts |= {p.id: p.question for p in theirs.feedback}
    shown = (prompt.messages for prompt in SHOWN_PROMPTS)
    config = plain(run.config)
    return Report(
        summary=summary,
        drawings=drawings(summary, history),
        shown=_side_by_side(samples, shown) if samples else {},
        transcripts=found,
        most_transcripts=run.config.report.transcripts,
        principles=texts,
        manifests={name: run.workdir.manifest(name) for name in summary.stages},
        settings=list(differences(config, plain(Config(workdir=config["workdir"])))),
        left=left,
    )


def _artifact(run: Run, stage: str) -> Path:
    """Folder of a finished stage, whose files are as they were written."""
    check_whole(run.workdir.folder(stage))
    return run.workdir.folder(stage)


def _there(inputs: Inputs) -> list[str]:
    """The stages that a run has, besides its report."""
    config = inputs.whole_run.config
    asked = {
        "pretrain": bool(config.pretrain),
        "warm_up": config.warm_up.epochs,
        "second_model": config.second_model.prompts,
        "red_team": config.red_team.rounds,
    }
    return [name for name in STAGE.needs if asked.get(name, True)]


def summarise(inputs: Inputs) -> Summary:
    """Everything measured in a finished run, with what it was measured on."""
    return summary_of(inputs.whole_run, _there(inputs))


def summary_of(run: Run, done: Iterable[str]) -> Summary:
    """Everything measured in a run so far.

    Args:
      run: finished, or not.
      done: stages that are.
    """
    manifests = {name: run.workdir.manifest(name) for name in STAGE.needs if name in set(done)}
    metrics = dict.fromkeys(STAGE.needs) | {name: m["metrics"] for name, m in manifests.items()}
    evaluation, trained = metrics.pop("evaluate"), metrics["pm_train"] or {}
    settings, constitution = run.config, run.data.constitution
    compares = LABELERS[settings.feedback.method].few_shots(constitution) is not None
    return Summary(
        supervision=Supervision(
            critique_revision_principles=len(constitution.critique_revision),
            feedback_principles=sum(len(c.feedback) for c in run.data.groups.values()),
            few_shots=settings.sl_data.few_shots + (settings.feedback.few_shots if compares else 0),
            demonstrations=len(run.data.rows("demonstrations")) if warmed_up(settings) else 0,
            labelled_helpfulness_pairs=trained.get("helpfulness_pairs", 0),
            human_harm_labels_trained_on=0,
        ),
        splits=run.data.overlap,
        stages={
            name: StageTime(
                m["seconds"], m["tokens"], m["tokens_per_second"], m.get("compile_seconds", 0.0)
            )
            for name, m in manifests.items()
        },
        policies={
            name: policy.label
            for name, policy in compared_policies(settings, metrics["rl"] or {}).items()
        },
        left_out={file: len(ids) for file, ids in sorted(run.data.left_out.items()) if ids},
        evaluation=TypeAdapter(Evaluation).validate_python(evaluation or NOTHING),
        **metrics,
        constitution=_version(constitution),
        groups={group: _version(c) for group, c in run.data.groups.items() if group},
        seed=settings.seed,
        devices=[*manifests.values()][-1]["devices"] if manifests else "",
        versions=versions(),
        config=plain(run.config),
    )


NOTHING: dict[str, Any] = {"sections": [], "measurements": {}}


def _version(constitution: Constitution) -> ConstitutionVersion:
    return ConstitutionVersion(constitution.name, constitution.version, constitution.content_hash())


def _side_by_side(
    samples: list[Sample], prompts: Iterable[Dialogue]
) -> dict[Dialogue, list[Sample]]:
    """What every policy replied to each of the prompts."""
    found = {(row.prompt, row.model): row for row in samples}
    return {prompt: [found[prompt, model] for model in POLICIES] for prompt in prompts}


STAGE = Stage(
    name="report",
    needs=("pretrain", "warm_up", *MEASURED),
    blocks=("report",),
    constitution=("critique_revision",),
    execute=execute,
)
