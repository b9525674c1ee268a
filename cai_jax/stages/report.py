"""The page that shows a run, and its summary.json; both from files alone."""

import json
from pathlib import Path
from typing import Any

from cai_jax.data.records import read_records
from cai_jax.data.rows import Revision, Sample
from cai_jax.parallel.hosts import write_text
from cai_jax.prompts.messages import Dialogue
from cai_jax.report.page import Transcript, TranscriptStep, render_page
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
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return Outcome({}, 0)


def summarise(inputs: Inputs) -> dict[str, Any]:
    """Everything measured in the run, with what it was measured on."""
    run = inputs.run
    manifests = {name: run.workdir.manifest(name) for name in MEASURED}
    settings, constitution = run.config, run.data.constitution
    compares = settings.feedback.method != "contrast"
    return {
        "supervision": {
            "critique_revision_principles": len(constitution.critique_revision),
            "feedback_principles": len(constitution.feedback),
            "few_shots": settings.sl_data.few_shots
            + (settings.feedback.few_shots if compares else 0),
            "labelled_helpfulness_pairs": manifests["pm_train"]["metrics"]["helpfulness_pairs"],
            "human_harm_labels_trained_on": 0,
        },
        "stages": {
            name: {key: m[key] for key in ("seconds", "tokens", "tokens_per_second")}
            for name, m in manifests.items()
        },
        "pretrain": run.workdir.manifest("pretrain")["metrics"] if settings.pretrain else None,
        "sl_data": manifests["sl_data"]["metrics"],
        "sl_train": manifests["sl_train"]["metrics"],
        "feedback": manifests["feedback"]["metrics"],
        "pm_train": manifests["pm_train"]["metrics"],
        "rl": manifests["rl"]["metrics"],
        "evaluation": manifests["evaluate"]["metrics"],
        "constitution": {
            "name": constitution.name,
            "version": constitution.version,
            "sha256": constitution.content_hash(),
        },
        "seed": settings.seed,
        "devices": manifests["evaluate"]["devices"],
        "versions": versions(),
        "config": json.loads((run.workdir.path / "config.json").read_text(encoding="utf-8")),
    }


def _side_by_side(samples: list[Sample], prompts: list[Dialogue]) -> list[dict[str, Any]]:
    """One entry a prompt: the response and score of every model."""
    found = {(row.prompt, row.model): row for row in samples}
    return [
        {"prompt": prompt, "answers": [found[prompt, model] for model in POLICIES]}
        for prompt in prompts
    ]


def _held_out(samples: list[Sample], count: int) -> list[dict[str, Any]]:
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
