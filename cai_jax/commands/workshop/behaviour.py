"""Markdown on what an edit of a constitution changed in a run, for ``diff --runs``."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from cai_jax.constitution.diff import as_text, differences
from cai_jax.constitution.schema import load_constitution
from cai_jax.evaluation.measure import Measure, number, with_interval
from cai_jax.evaluation.statistics import Estimate
from cai_jax.markdown import one_line
from cai_jax.stages.behaviour import (
    Change,
    Cost,
    LabelPair,
    Labels,
    compare,
    finished_run,
    kept_constitution,
)
from cai_jax.stages.models import POLICIES

EXAMPLES = 5
SHARE = Measure("", "share", "", "")
LEVEL = Measure("", "", "", "")


def behaviour_report(workdirs: Sequence[Path], files: Sequence[Path]) -> str:
    """All that changed from the first run to the second.

    Args:
      workdirs: two, of finished runs.
      files: their constitutions, or none.

    Raises:
      ValueError: there are not two runs, or they were made under other constitutions.
    """
    if len(workdirs) != 2 or len(files) not in (0, 2):
        raise ValueError(
            f"{len(workdirs)} workdirs and {len(files)} files; name OLD_WORKDIR,NEW_WORKDIR, and "
            "both files or none"
        )
    runs = [finished_run(workdir) for workdir in workdirs]
    kept = [kept_constitution(run) for run in runs]
    for run, constitution, file in zip(runs, kept, files, strict=False):
        changed = differences(constitution, load_constitution(file))
        if any(difference.part != "about" for difference in changed):
            raise ValueError(
                f"{run.workdir.path} was made under another text than {file}; leave the files "
                "out, and those that the runs kept are compared"
            )
    found = compare(*runs)
    parts = [
        f"# From {workdirs[0]} to {workdirs[1]}",
        f"```\n{as_text(differences(*kept))}\n```",
        _labels(found.labels),
        "## Scores of the same replies\n\nReplies that are the same, word for word, in both runs, "
        "by the preference models of both. Standard deviations of SL-CAI's samples.",
        _table(found.scores),
        "## Replies to the same held-out prompts",
        _table(found.replies),
        _costs(found.costs),
        _GIVEN,
    ]
    return "\n\n".join(parts)


_GIVEN = (
    "Brackets are 95 % intervals by a bootstrap over prompts, whose replies stay together. They "
    "are conditional on the two runs, and on their seed: with other seeds both would differ."
)


def _labels(labels: Labels) -> str:
    """How many labels moved, how far, and which moved most."""
    n, prompts = len(labels.pairs), len({pair.old.prompt for pair in labels.pairs})
    lines = [f"## Labels\n\n{n} pairs of {prompts} prompts are the same two replies in both runs"]
    lines[0] += f"; {labels.unpaired} comparisons are of one run alone." if labels.unpaired else "."
    if not n:
        return lines[0]
    lines.append(
        f"\n- labels that changed: {_share(labels.changed)}\n"
        f"- that now prefer the other reply: {_share(labels.flipped)}\n"
        f"- P(first is better) moved by {_told(labels.shift, LEVEL)}, mean of all pairs"
    )
    moved = sorted((p for p in labels.pairs if p.shift), key=lambda p: -abs(p.shift))
    if moved:
        lines.append("\nThose that moved most:\n")
        lines += map(_example, moved[:EXAMPLES])
    return "\n".join(lines)


def _example(pair: LabelPair) -> str:
    old, new = pair.old, pair.new
    under = ", ".join(old.principle_ids)
    if set(old.principle_ids) != set(new.principle_ids):
        under += f"; now {', '.join(new.principle_ids)}"
    return (
        f"- *{one_line(old.prompt[-1].text)}* P(first) {old.probability:.2f}, now "
        f"{new.probability:.2f}, under {under}\n"
        f"  - first: {one_line(old.response_first)}\n"
        f"  - second: {one_line(old.response_second)}"
    )


def _table(changes: Iterable[Change]) -> str:
    """A row a measure, policy and set of prompts."""
    rows = [["of", "prompts", "", "old", "new", "new minus old", "n, prompts"], ["---"] * 7]
    for change in changes:
        percent = " %" if change.measure.unit == "share" else ""
        rows.append(
            [
                POLICIES[change.subject].label,
                change.group.replace("_", " "),
                change.measure.name.replace("_", " "),
                number(change.measure, change.old) + percent,
                number(change.measure, change.new) + percent,
                _told(change.difference, change.measure),
                f"{change.n}, {change.units}",
            ]
        )
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _costs(costs: Sequence[Cost]) -> str:
    """What each stage of the new run took."""
    rows = [["stage", "rows", "tokens", "seconds", "old run's"], ["---", "---", *["---:"] * 3]]
    for cost in costs:
        counts = (
            f"{kind} {count['computed']} of {sum(count.values())}"
            for kind, count in cost.rows.items()
        )
        told = ["taken whole", "0", "0"]
        if not cost.taken:
            told = [", ".join(counts), str(cost.tokens), f"{cost.seconds:.0f}"]
        rows.append([cost.stage, *told, f"{cost.old_tokens}, {cost.old_seconds:.0f} s"])
    done = [cost for cost in costs if not cost.taken]
    total = (sum(cost.tokens for cost in done), sum(cost.seconds for cost in done))
    before = (sum(cost.old_tokens for cost in costs), sum(cost.old_seconds for cost in costs))
    rows.append(["all", "", str(total[0]), f"{total[1]:.0f}", f"{before[0]}, {before[1]:.0f} s"])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return f"## What it cost\n\nRows and tokens that the new run computed.\n\n{table}"


def _share(e: Estimate) -> str:
    return _told(e, SHARE) + " %"


def _told(e: Estimate, measure: Measure) -> str:
    return with_interval(e, partial(number, measure))
