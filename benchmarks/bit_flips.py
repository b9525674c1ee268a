"""One flipped bit in artifacts of every kind of a finished run: is each one noticed?

    python benchmarks/bit_flips.py WORKDIR [COUNT]

COUNT (300) times, drawn by seed, one bit of one file is flipped and flipped back, kind after kind.
A flip is detected if the next start of the run redoes the stage or refuses the config, and whoever
reads the file is refused; it is harmless if the reader is given what was written. All else is
silent, and the exit code is 1. Prints a table, and what the flips that were silent changed.
"""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cai_jax.config import ConfigError
from cai_jax.keys import named_rng
from cai_jax.stages.behaviour import finished_run
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import due_stages, fingerprints
from cai_jax.stages.stage import Run
from cai_jax.stages.workdir import CONFIG, read_config
from cai_jax.storage.sealed import MANIFEST, NotWholeError, check_whole, read_sealed

COUNT, SEED = 300, 0
KINDS = {  # by which files of a workdir are of one
    "checkpoint data": "*/**/params/**/*",
    "checkpoint": "*/**/model.json",
    "records": "*/**/1.0.0/*",
    "manifest": f"*/{MANIFEST}",
    "config": CONFIG,
    "history": "*/history.json",
    "computed values": "*/computed.jsonl",
    "evaluation": "evaluate/*.json",
    "report": "report/*",
    "constitution": "*/constitution*.yaml",
    "TensorBoard": "*/**/events.*",
}


@contextmanager
def flipped(file: Path, bit: int) -> Iterator[None]:
    """The file with one bit changed, meanwhile."""
    held = file.read_bytes()
    changed = bytearray(held)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(changed)
    try:
        yield
    finally:
        file.write_bytes(held)


def verdict(run: Run, file: Path, bit: int, found: dict[str, str]) -> str:
    """``detected``, ``harmless`` or ``silent``."""
    sealed = file.name in (CONFIG, MANIFEST)
    written = read_sealed(file) if sealed else {}
    with flipped(file, bit):
        if sealed and _reads_the_same(file, written):
            return "harmless"
        return (
            "detected" if _start_notices(run, file, found) and _reader_notices(file) else "silent"
        )


def _reads_the_same(file: Path, written: dict) -> bool:
    try:
        return read_sealed(file) == written
    except NotWholeError:
        return False


def _start_notices(run: Run, file: Path, found: dict[str, str]) -> bool:
    """Whether the next start redoes the file's stage, or refuses the config."""
    if file.name == CONFIG:
        try:
            run.workdir.claim(run.config)
        except ConfigError:
            return True
        return False
    return file.relative_to(run.workdir.path).parts[0] in due_stages(
        run, stages_of(run.config), found
    )


def _reader_notices(file: Path) -> bool:
    try:
        read_config(file) if file.name == CONFIG else check_whole(file)
    except ValueError:
        return True
    return False


def flips(workdir: Path, count: int) -> dict[str, Counter]:
    """By kind, how many flips were what."""
    run = finished_run(workdir)
    found = fingerprints(run, stages_of(run.config))
    assert not due_stages(run, stages_of(run.config), found), (
        "the run is not finished, or not whole"
    )
    files = {
        kind: sorted(f for f in workdir.glob(pattern) if f.is_file() and f.stat().st_size)
        for kind, pattern in KINDS.items()
    }
    files = {kind: there for kind, there in files.items() if there}
    rng, counts = named_rng(SEED, "bit flips"), {kind: Counter() for kind in files}
    for number in range(count):
        kind = list(files)[number % len(files)]
        file = files[kind][rng.integers(len(files[kind]))]
        bit = int(rng.integers(8 * file.stat().st_size))
        what = verdict(run, file, bit, found)
        counts[kind][what] += 1
        if what == "silent":
            print(f"silent: {file}, bit {bit}", file=sys.stderr)
    return counts


def table(counts: dict[str, Counter]) -> str:
    """The counts as Markdown."""
    rows = ["| artifact | flips | detected | harmless | silent |", "| --- |" + " ---: |" * 4]
    for kind, found in {**counts, "all": sum(counts.values(), Counter())}.items():
        numbers = (found.total(), found["detected"], found["harmless"], found["silent"])
        rows.append(f"| {kind} | {' | '.join(map(str, numbers))} |")
    return "\n".join(rows)


if __name__ == "__main__":
    workdir, *rest = sys.argv[1:]
    found_counts = flips(Path(workdir).resolve(), int(rest[0]) if rest else COUNT)
    print(table(found_counts))
    sys.exit(any(found["silent"] for found in found_counts.values()))
