"""The page that shows a run, and its summary.json; both from files alone."""

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from pydantic import TypeAdapter

from cai_jax.config import plain, warmed_up
from cai_jax.constitution.schema import Constitution
from cai_jax.data.records import read_records
from cai_jax.data.rows import Revision, Sample
from cai_jax.evaluation.measure import Evaluation
from cai_jax.feedback.registry import LABELERS
from cai_jax.parallel.hosts import write_text
from cai_jax.prompts.messages import Dialogue
from cai_jax.reading import read_json
from cai_jax.report.page import render_page
from cai_jax.report.summary import ConstitutionVersion, StageTime, Summary, Supervision
from cai_jax.stages.data import SHOWN_PROMPTS
from cai_jax.stages.evaluate import compared_policies
from cai_jax.stages.models import POLICIES
from cai_jax.stages.provenance import versions
from cai_jax.stages.stage import Inputs, Outcome, Stage

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


def execute(inputs: Inputs, folder: Path) -> Outcome:
    """Writes index.html and summary.json."""
    summary, count = summarise(inputs), inputs.config.report.transcripts
    history = read_json(inputs.artifact("rl") / "history.json")
    samples = read_records(inputs.artifact("evaluate") / "samples", Sample)
    held_out = list(dict.fromkeys(row.prompt for row in samples if row.set == "red_team"))
    page = render_page(
        summary=summary,
        history=history,
        shown=_side_by_side(samples, (prompt.messages for prompt in SHOWN_PROMPTS)),
        held_out=_side_by_side(samples, held_out[:count]),
        transcripts=_transcripts(inputs)[:count],
        requests={p.id: p.critique_request for p in inputs.constitution.critique_revision},
    )
    write_text(folder / "index.html", page)
    write_text(folder / "summary.json", json.dumps(asdict(summary), indent=2) + "\n")
    return Outcome({}, 0)


def summarise(inputs: Inputs) -> Summary:
    """Everything measured in the run, with what it was measured on."""
    run = inputs.whole_run
    asked = {
        "second_model": run.config.second_model.prompts,
        "red_team": run.config.red_team.rounds,
    }
    manifests = {name: inputs.manifest(name) for name in MEASURED if asked.get(name, True)}
    metrics = {name: manifest["metrics"] for name, manifest in manifests.items()}
    settings, constitution = run.config, run.data.constitution
    compares = LABELERS[settings.feedback.method].few_shots(constitution) is not None
    return Summary(
        supervision=Supervision(
            critique_revision_principles=len(constitution.critique_revision),
            feedback_principles=sum(len(c.feedback) for c in run.data.groups.values()),
            few_shots=settings.sl_data.few_shots + (settings.feedback.few_shots if compares else 0),
            demonstrations=len(run.data.rows("demonstrations")) if warmed_up(settings) else 0,
            labelled_helpfulness_pairs=metrics["pm_train"]["helpfulness_pairs"],
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
            for name, policy in compared_policies(settings, metrics["rl"]).items()
        },
        left_out={file: len(ids) for file, ids in sorted(run.data.left_out.items()) if ids},
        pretrain=inputs.manifest("pretrain")["metrics"] if settings.pretrain else None,
        warm_up=inputs.manifest("warm_up")["metrics"] if settings.warm_up.epochs else None,
        evaluation=TypeAdapter(Evaluation).validate_python(metrics.pop("evaluate")),
        second_model=metrics.pop("second_model", None),
        red_team=metrics.pop("red_team", None),
        **metrics,
        constitution=_version(constitution),
        groups={group: _version(c) for group, c in run.data.groups.items() if group},
        seed=settings.seed,
        devices=manifests["evaluate"]["devices"],
        versions=versions(),
        config=plain(run.config),
    )


def _version(constitution: Constitution) -> ConstitutionVersion:
    return ConstitutionVersion(constitution.name, constitution.version, constitution.content_hash())


def _side_by_side(
    samples: list[Sample], prompts: Iterable[Dialogue]
) -> dict[Dialogue, list[Sample]]:
    """What every policy replied to each of the prompts."""
    found = {(row.prompt, row.model): row for row in samples}
    return {prompt: [found[prompt, model] for model in POLICIES] for prompt in prompts}


def _transcripts(inputs: Inputs) -> list[list[Revision]]:
    """Critique-revision dialogues, step by step, those with most rounds first."""
    steps: dict[str, list[Revision]] = {}
    for name in ("responses", "revisions"):
        for row in read_records(inputs.artifact("sl_data") / name, Revision):
            steps.setdefault(row.prompt_id, []).append(row)
    dialogues = (sorted(rows, key=lambda row: row.round) for rows in steps.values())
    return sorted(dialogues, key=lambda rows: (-len(rows), rows[0].id))


STAGE = Stage(
    name="report",
    needs=("pretrain", "warm_up", *MEASURED),
    blocks=("report",),
    constitution=("critique_revision",),
    execute=execute,
)
