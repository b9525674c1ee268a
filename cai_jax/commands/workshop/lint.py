"""Finds faults of a constitution before a model reads it: file, line, rule, remedy.

python -m cai_jax.constitution lint FILE... [--model=SOURCE [--pairs=FILE]]

Each finding is one line, and the exit code is 1 if there is any. With --model, principles are found
too that label the same pairs the opposite way, whatever their wording: the pairs of --pairs, or
else the cases of the file.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from cai_jax.commands import labelers
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import MODEL
from cai_jax.constitution.lint import lint
from cai_jax.constitution.schema import Located
from cai_jax.evaluation.cases import pairs_of
from cai_jax.evaluation.decisions import contrary_principles, labels_of


def main(files: Sequence[Path]) -> None:
    """Prints what lint finds in every file."""
    if not files:
        raise ValueError("lint which file? such as constitutions/harmless.yaml")
    by_model = MODEL.value or labelers.PAIRS.value
    linted = [lint(path, contrary_labels if by_model else None) for path in files]
    findings = [finding for file in linted for finding in file.findings]
    if findings:
        print(*findings, sep="\n")
        sys.exit(1)
    principles = sum(file.principles for file in linted)
    allowed = sum(file.allowed for file in linted)
    reasons = f"; {allowed} findings are allowed by comments" if allowed else ""
    print(f"{len(files)} files, {principles} principles: nothing to change{reasons}")


def contrary_labels(located: Located) -> Iterator[tuple[int, str]]:
    """Feedback principles under which the model labels pairs the opposite way.

    Raises:
      ValueError: there is no model, or there are no pairs.
    """
    c = located.constitution
    pairs = labelers.read_labelled() if labelers.PAIRS.value else pairs_of(c)
    if not pairs:
        raise ValueError(f"{located.path} has no cases to judge; name --pairs, or add cases")
    labels = labels_of(labelers.open_labeler(c), pairs, c.feedback)
    for found in contrary_principles(labels, c.feedback):
        line, last = (located.lines[p.id, "id"] for p in (found.one, found.other))
        yield (
            last,
            f"{found.other.id} labels {len(pairs)} pairs the opposite way of {found.one.id}, line "
            f"{line} (correlation {found.correlation:.2f}); keep one, or say when each holds",
        )


if __name__ == "__main__":
    start(main, files=True)
