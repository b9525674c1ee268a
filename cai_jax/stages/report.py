"""The page that shows a run, and its summary.json; both from files alone."""

import json
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from cai_jax.data.records import read_records
from cai_jax.data.rows import Revision, Sample
from cai_jax.evaluation.measure import Evaluation
from cai_jax.parallel.hosts import write_text
from cai_jax.prompts.messages import Dialogue
from cai_jax.report.page import SideBySide, Transcript, TranscriptStep, render_page
from cai_jax.report.summary import ConstitutionVersion, StageTime, Summary, Supervision
from cai_jax.stages.evaluate import SHOWN_PROMPTS
from cai_jax.stages.models import POLICIES
from cai_jax.stages.runner import versions
from cai_jax.stages.stage import Inputs, Outcome, Stage

MEASURED = ("sl_data", "sl_train", "feedback", "pm_train", "rl", "evaluate")


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Writes index.html and summary.json."""
    summary = summarise(inputs)
    history = json.loads((inputs.artifact("rl") / "history.json").read_text(encoding="utf-8"))
    samples = read_records(inputs.artifact("evaluate") / "samples", Sample)
    transcripts = inputs.config.report.transcripts
    page = render_page(
        summary=summary,
        history=history,
        shown=_side_by_side(samples, [p.messages for p in SHOWN_PROMPTS]),
        held_out=_held_out(samples, transcripts),
        transcripts=_transcripts(inputs, transcripts),
    )
    write_text(folder / "index.html", page)
    write_text(folder / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
    return Outcome({}, 0)


def summarise(inputs: Inputs) -> Summary:
    """Everything measured in the run, with what it was measured on."""
    run = inputs.run
    manifests = {name: run.workdir.manifest(name) for name in MEASURED}
    metrics = {name: manifest["metrics"] for name, manifest in manifests.items()}
    settings, constitution = run.config, run.data.constitution
    compares = settings.feedback.method != "contrast"
    return Summary(
        supervision=Supervision(
            critique_revision_principles=len(constitution.critique_revision),
            feedback_principles=len(constitution.feedback),
            few_shots=settings.sl_data.few_shots + (settings.feedback.few_shots if compares else 0),
            labelled_helpfulness_pairs=metrics["pm_train"]["helpfulness_pairs"],
            human_harm_labels_trained_on=0,
        ),
        stages={
            name: StageTime(m["seconds"], m["tokens"], m["tokens_per_second"])
            for name, m in manifests.items()
        },
        policies={name: label for name, (label, _) in POLICIES.items()},
        pretrain=run.workdir.manifest("pretrain")["metrics"] if settings.pretrain else None,
        evaluation=TypeAdapter(Evaluation).validate_python(metrics.pop("evaluate")),
        **metrics,
        constitution=ConstitutionVersion(
            constitution.name, constitution.version, constitution.content_hash()
        ),
        seed=settings.seed,
        devices=manifests["evaluate"]["devices"],
        versions=versions(),
        config=json.loads((run.workdir.path / "config.json").read_text(encoding="utf-8")),
    )


def _side_by_side(samples: list[Sample], prompts: list[Dialogue]) -> list[SideBySide]:
    found = {(row.prompt, row.model): row for row in samples}
    return [SideBySide(prompt, [found[prompt, model] for model in POLICIES]) for prompt in prompts]


def _held_out(samples: list[Sample], count: int) -> list[SideBySide]:
    prompts = list(dict.fromkeys(row.prompt for row in samples if row.set == "red_team"))
    return _side_by_side(samples, prompts[:count])


def _transcripts(inputs: Inputs, count: int) -> list[Transcript]:
    """Critique-revision dialogues, step by step, those with most rounds first."""
    principles = {p.id: p for p in inputs.constitution.critique_revision}
    steps: dict[str, list[Revision]] = {}
    for name in ("responses", "revisions"):
        for row in read_records(inputs.artifact("sl_data") / name, Revision):
            steps.setdefault(row.prompt_id, []).append(row)
    longest = sorted(steps.values(), key=lambda rows: (-len(rows), rows[0].id))[:count]
    out = []
    for rows in longest:
        first, *later = sorted(rows, key=lambda row: row.round)
        revised = [
            TranscriptStep(
                principle_id=row.principle_id,
                critique_request=principles[row.principle_id].critique_request,
                critique=row.critique,
                revision=row.response,
            )
            for row in later
        ]
        out.append(Transcript(first.prompt, first.response, revised))
    return out


STAGE = Stage(
    name="report",
    needs=MEASURED,
    blocks=("report",),
    constitution=("critique_revision",),
    execute=execute,
)
