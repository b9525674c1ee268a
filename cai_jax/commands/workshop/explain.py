"""Says which principles shaped the result of a finished run, and what moved a reply's score.

python -m cai_jax.constitution explain WORKDIR [--reply=ID] [--top=5] [--out=FILE.md]

The tables are those of the run's report, what matters most first: how often each principle was
drawn, how much its revisions changed the reply, which labels it decided, and what RL-CAI's lead
over base owes to its labels. --reply names a reply of evaluation, as red_team/ID/rl_cai, or a
prompt, as red_team/ID, for every reply to it: whose labels and which comparisons moved its score
most, away from the other models' replies to the same prompt.

What is owed is told by a linear head on the hidden states of the preference model, solved with all
labels and again without those of one principle; cai_jax/evaluation/attribution.py says how.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from absl import flags

from cai_jax.commands.files import check_out, write_whole
from cai_jax.commands.front import start
from cai_jax.config import naming
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Sample
from cai_jax.evaluation.attribution import Head, comparison_id, contrasts, fit_head, read_labels
from cai_jax.evaluation.measure import Evaluation
from cai_jax.prompts.critique_revision import parse_reply
from cai_jax.reading import validated
from cai_jax.report.explanation import CHAPTERS, Moved, explanation
from cai_jax.rl.reward import Reward
from cai_jax.stages import evaluate
from cai_jax.stages.engines import make_reward
from cai_jax.stages.pm_train import comparisons_of
from cai_jax.stages.stage import Inputs, open_run
from cai_jax.stages.workdir import read_config
from cai_jax.storage.files import resolved
from cai_jax.storage.sealed import check_whole

REPLY = flags.DEFINE_string("reply", None, "id of a reply of evaluation, or of its prompt")
TOP = flags.DEFINE_integer("top", 5, "comparisons that are shown of a reply", lower_bound=1)
OUT = flags.DEFINE_string("out", None, "Markdown file to write; without it, the text is printed")


def main(folders: list[Path]) -> None:
    """Writes or prints the explanation."""
    if len(folders) != 1:
        raise ValueError(f"explain reads one run, not {len(folders)}; name its WORKDIR")
    folder = resolved(folders[0])
    if OUT.value:
        check_out(OUT.value, inputs=[folder / "config.json"])
    inputs, evaluation = open_finished(folder)
    moved = explain_replies(inputs, REPLY.value, TOP.value) if REPLY.value else []
    text = explanation(folder.name, evaluation, principle_texts(inputs), moved)
    if OUT.value:
        write_whole(OUT.value, text)
    else:
        print(text, end="")


def open_finished(folder: Path) -> tuple[Inputs, Evaluation]:
    """What evaluation read in a finished run, under the constitution of that time, and found.

    Raises:
      ValueError: the folder holds no run, or one that was not evaluated by this version.
    """
    file, measured = folder / "config.json", folder / "evaluate" / "evaluation.json"
    if not file.exists():
        raise ValueError(f"{folder}: no config.json; name the workdir of a run")
    redo = "give python -m cai_jax.main its config again, with --config.stages=evaluate,report"
    if not measured.exists():
        raise ValueError(f"{folder}: was not evaluated; {redo}")
    with naming(str(file)):
        config = read_config(file)
    check_whole(measured.parent)
    kept = folder / "evaluate" / "constitution.yaml"
    constitution = replace(config.constitution, path=str(kept))
    run = open_run(replace(config, workdir=str(folder), constitution=constitution))
    evaluation = validated(Evaluation, measured)
    if not {section.name for section in evaluation.sections} & {*CHAPTERS}:
        raise ValueError(f"{folder}: was evaluated before principles were measured; {redo}")
    return run.inputs(evaluate.STAGE), evaluation


def principle_texts(inputs: Inputs) -> Mapping[str, Mapping[str, str]]:
    """What principles ask, by chapter and id."""
    c = inputs.constitution
    critiques = {p.id: p.critique_request for p in c.critique_revision}
    questions = {p.id: p.question for group in inputs.groups.values() for p in group.feedback}
    return dict(zip(CHAPTERS, (critiques, questions), strict=True))


def explain_replies(inputs: Inputs, name: str, top: int) -> list[Moved]:
    """What moved the scores of the replies that an id names.

    Raises:
      ValueError: there is no such reply, nothing to compare it with, or no label behind its score.
    """
    replies: dict[str, list[Sample]] = {}  # that the preference model judged, by prompt
    # The stage evaluate declares no artifact of its own.
    for row in read_records(inputs.workdir / "evaluate" / "samples", Sample):
        if parse_reply(row.response, row.finished) is not None:
            replies.setdefault(prompt_of(row), []).append(row)
    chosen = [row for rows in replies.values() for row in rows if name in (row.id, prompt_of(row))]
    if not chosen or len(replies[prompt_of(chosen[0])]) < 2:
        some = ", ".join(sorted(prompt for prompt, rows in replies.items() if len(rows) > 1)[:3])
        raise ValueError(
            f"--reply={name}: no such reply, or not two to its prompt that parse; prompts are "
            f"{some} ..."
        )
    trained_on = inputs.manifest("pm_train")["metrics"]["labels"]
    if trained_on != "soft":
        raise ValueError(
            f"--reply: the preference model learned from {trained_on} labels, so that none is "
            "known to be a principle's; name a run whose config.pm_train.labels are soft"
        )
    people, moved = evaluate.trained_helpfulness(inputs), []
    for group, reward in make_reward(inputs).rewards.items():
        rows = comparisons_of(inputs, "training", group)
        comparisons = {comparison_id(row): row for row in rows}
        head = fit_head(read_labels(reward.scorer, rows, people))
        for row in chosen:
            others = [other for other in replies[prompt_of(row)] if other is not row]
            moved.append(moved_by(group, reward, head, row, others, comparisons, top))
    return moved


def prompt_of(row: Sample) -> str:
    """The id of a reply without its model's name."""
    return row.id.removesuffix(f"/{row.model}")


def moved_by(
    group: str,
    reward: Reward,
    head: Head,
    row: Sample,
    others: list[Sample],
    comparisons: Mapping[str, Comparison],
    top: int,
) -> Moved:
    """What moved a reply's score away from the mean of other replies to its prompt."""
    features_md = contrasts(reward, [(row.prompt, row.response, o.response) for o in others])
    mean_d = features_md.mean(axis=0)
    by_pair = head.influences(mean_d)
    found = [(comparison, by_pair[n]) for n, comparison in comparisons.items() if n in by_pair]
    return Moved(
        group=group,
        reply=row,
        others=others,
        lead=float(mean_d @ head.kernel_d),
        sources={name: float(head.lost(name, mean_d)) for name in head.sources},
        comparisons=sorted(found, key=lambda item: -abs(item[1]))[:top],
    )


if __name__ == "__main__":
    start(main, files=True)
