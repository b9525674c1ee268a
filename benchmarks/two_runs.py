"""Two runs started at once in one workdir, pair after pair: one ends well, the other is refused.

    python benchmarks/two_runs.py PAIRS WORKDIR --config=FILE [--config.FIELD=VALUE ...]

Each pair has a workdir of its own in WORKDIR. One run has to end with exit code 0, the other with
one sentence that names the first, before the first ends. Prints how many pairs did.
"""

import subprocess
import sys
import time
from pathlib import Path


def pair(workdir: Path, flags: list[str]) -> str:
    """What went wrong; empty if nothing did."""
    command = [sys.executable, "-m", "cai_jax.main", *flags, f"--config.workdir={workdir}"]
    logs = [workdir.with_name(f"{workdir.name}-{number}.txt") for number in range(2)]
    workdir.parent.mkdir(parents=True, exist_ok=True)
    both = [subprocess.Popen(command, stderr=log.open("w"), stdout=log.open("a")) for log in logs]
    ended: dict[int, float] = {}
    while len(ended) < 2:
        for number, process in enumerate(both):
            if process.poll() is not None:
                ended.setdefault(number, time.monotonic())
        time.sleep(0.1)
    refused, ran = sorted(range(2), key=ended.__getitem__)
    said = logs[refused].read_text()
    errors = [line for line in said.splitlines() if line.startswith("error: ")]
    owner = f"process {both[ran].pid} on "
    if (both[ran].returncode, both[refused].returncode) != (0, 1):
        return f"exit codes {both[ran].returncode} and {both[refused].returncode}; see {logs[ran]}"
    if len(errors) != 1 or owner not in errors[0] or "Traceback" in said:
        return f"the refused one does not name {owner}; see {logs[refused]}"
    return ""


if __name__ == "__main__":
    count, folder, *given = sys.argv[1:]
    problems = [pair(Path(folder).resolve() / f"pair-{n}", given) for n in range(int(count))]
    print(*filter(None, problems), sep="\n", end="\n" if any(problems) else "")
    print(f"{problems.count('')} of {count} pairs: one ended well, the other was refused by name")
    sys.exit(any(problems))
