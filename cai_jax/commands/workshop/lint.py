"""Finds faults of a constitution before a model reads it: file, line, rule, remedy.

python -m cai_jax.constitution lint FILE...

Each finding is one line, and the exit code is 1 if there is any.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from cai_jax.commands.front import start
from cai_jax.constitution.lint import lint


def main(files: Sequence[Path]) -> None:
    """Prints what lint finds in every file."""
    if not files:
        raise ValueError("lint which file? such as constitutions/harmless.yaml")
    linted = [lint(path) for path in files]
    findings = [finding for file in linted for finding in file.findings]
    if findings:
        print(*findings, sep="\n")
        sys.exit(1)
    principles = sum(file.principles for file in linted)
    allowed = sum(file.allowed for file in linted)
    reasons = f"; {allowed} findings are allowed by comments" if allowed else ""
    print(f"{len(files)} files, {principles} principles: nothing to change{reasons}")


if __name__ == "__main__":
    start(main, files=True)
