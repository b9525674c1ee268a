"""The page that shows a run, and its summary.json; both from files alone."""

import json
from pathlib import Path
from typing import Any

from cai_jax.data.records import read_records
from cai_jax.parallel.hosts import write_text
from cai_jax.report.page import Transcript, TranscriptStep, render_page
from cai_jax.stages.evaluate import MODELS, SHOWN_PROMPTS
from cai_jax.stages.run import Outcome, Run, Stage
from cai_jax.stages.runner import read_manifest, versions

MEASURED = ("sl_data", "sl_train", "feedback", "pm_train", "rl", "evaluate")


def run(run: Run, folder: Path) -> Outcome:
    """Writes index.html and summary.json."""
    summary = summarise(run)
    history = json.loads((run.workdir / "rl" / "history.json").read_text(encoding="utf-8"))
    samples = read_records(run.workdir / "evaluate", "samples")
    page = render_page(
        summary=summary,
        history=history,
        shown=_side_by_side(samples, [p.text for p in SHOWN_PROMPTS]),
        held_out=_held_out(samples, run.config.report.transcripts),
        transcripts=_transcripts(run, run.config.report.transcripts),
    )
    write_text(folder / "index.html", page)
    write_text(folder / "summary.json", json.dumps(summary, indent=2) + "\n")
    return Outcome({}, 0)


def summarise(run: Run) -> dict[str, Any]:
    """Everything measured in the run, with what it was measured on."""
    manifests = {name: read_manifest(run, name) for name in MEASURED}
    settings, constitution = run.config, run.constitution
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
        "pretrain": read_manifest(run, "pretrain")["metrics"] if settings.pretrain else None,
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
        "config": json.loads((run.workdir / "config.json").read_text(encoding="utf-8")),
    }


def _side_by_side(samples: list[dict], prompts: list[str]) -> list[dict[str, Any]]:
    """One entry a prompt: the response and score of every model."""
    found = {(row["prompt"], row["model"]): row for row in samples}
    return [
        {"prompt": prompt, "answers": [found[prompt, model] for model in MODELS]}
        for prompt in prompts
    ]


def _held_out(samples: list[dict], count: int) -> list[dict[str, Any]]:
    prompts = list(dict.fromkeys(r["prompt"] for r in samples if r["set"] == "red_team"))
    return _side_by_side(samples, prompts[:count])


def _transcripts(run: Run, count: int) -> list[Transcript]:
    """Critique-revision dialogues, step by step, those with most rounds first."""
    principles = {p.id: p for p in run.constitution.critique_revision}
    steps: dict[str, list[dict]] = {}
    for name in ("responses", "revisions"):
        for row in read_records(run.workdir / "sl_data", name):
            steps.setdefault(row["prompt_id"], []).append(row)
    longest = sorted(steps.values(), key=lambda rows: (-len(rows), rows[0]["id"]))[:count]
    out = []
    for rows in longest:
        rows = sorted(rows, key=lambda row: row["round"])
        out.append(
            Transcript(
                prompt=rows[0]["prompt"],
                response=rows[0]["response"],
                steps=[
                    TranscriptStep(
                        principle_id=row["principle_id"],
                        critique_request=principles[row["principle_id"]].critique_request,
                        critique=row["critique"],
                        revision=row["response"],
                    )
                    for row in rows[1:]
                ],
            )
        )
    return out


STAGE = Stage(
    name="report",
    inputs=MEASURED,
    settings=lambda run: [run.config.report, run.constitution.content_hash()],
    run=run,
)
