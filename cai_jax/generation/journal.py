"""Results of finished batches, kept as they come, so that a stage that was cut off goes on.

A stage is run again from its start, in the order in which it ran before; batches that it finished
then are read instead of computed. So whatever it samples, labels or scores is kept, and is to the
last bit what an uninterrupted run has: its batches are the same, and no row changes its company.
"""

import io
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np

from cai_jax.parallel import hosts, preemption

VISIBLE_SECONDS = 120  # that a network file system may take to show what the main host wrote


class Journal:
    """The batches of one stage, a file each, numbered as they were computed.

    Args:
      folder: of the files; made where there is none.
    """

    def __init__(self, folder: Path):
        self._folder, self._at = folder, 0
        if hosts.is_main():
            folder.mkdir(parents=True, exist_ok=True)
        self.kept = hosts.from_main("finished batches", int, self._count())  # that can be read

    def take(self, call: str) -> tuple[np.ndarray, ...] | None:
        """What the next batch gave, where it was finished before and is the same call."""
        file = self._file(self._at)
        if self._at >= self.kept:
            return None
        if not hosts.becomes_true(file.exists, VISIBLE_SECONDS):
            raise OSError(f"{file}: written by the main host, but not seen on this one")
        found, values = _read(file)
        if found != call:  # batches of another size, so all that follow are others too
            hosts.sync("a batch of another size")  # each has read it before it goes
            self._drop(self._at)
            self.kept = self._at
            return None
        self._at += 1
        return values

    def put(self, call: str, values: Sequence[np.ndarray]) -> None:
        """Keeps what the next batch gave."""
        if hosts.is_main():
            file, out = self._file(self._at), io.BytesIO()
            np.savez(out, *values, call=np.array(call))
            partial, content = file.with_suffix(".partial"), out.getvalue()
            partial.write_bytes(sha256(content).digest() + content)
            os.replace(partial, file)
        self._at += 1

    def _file(self, number: int) -> Path:
        return self._folder / f"{number:08d}.batch"

    def _count(self) -> int:
        """How many of the first files are whole."""
        count = 0
        while hosts.is_main() and self._file(count).exists():
            try:
                _read(self._file(count))
            except ValueError:
                self._drop(count)
            else:
                count += 1
        return count

    def _drop(self, first: int) -> None:
        while hosts.is_main() and self._file(first).exists():
            self._file(first).unlink()
            first += 1


def _read(file: Path) -> tuple[str, tuple[np.ndarray, ...]]:
    """The call of a batch, and what it gave.

    Raises:
      ValueError: the file is not what was written.
    """
    digest, content = (whole := file.read_bytes())[:32], whole[32:]
    if sha256(content).digest() != digest:
        raise ValueError(f"{file}: not what was written; delete it, and run again")
    with np.load(io.BytesIO(content)) as found:
        values = tuple(found[f"arr_{i}"] for i in range(len(found.files) - 1))
        return str(found["call"]), values


_journal: Journal | None = None


@contextmanager
def keeping(journal: Journal | None) -> Iterator[None]:
    """While it lasts, finished batches go into the journal; None: into none."""
    global _journal
    before, _journal = _journal, journal
    try:
        yield
    finally:
        _journal = before


def recorded(
    name: str,
    batch: Sequence[np.ndarray],
    compute: Callable[[], Sequence[np.ndarray]],
) -> Sequence[np.ndarray]:
    """What ``compute`` gives, or gave when the stage was at this batch before.

    Args:
      name: of the program.
      batch: its arrays.
      compute: calls it; host arrays.

    Raises:
      PreemptedError: the run is told to end; the batch is kept.
    """
    journal = _journal
    if journal is None:
        return compute()
    call = f"{name} {[array.shape for array in batch]} {hosts.digest(batch)}"
    values: Sequence[np.ndarray] | None = journal.take(call)
    if values is None:
        values = compute()
        journal.put(call, values)
    if preemption.should_leave():
        preemption.leave()
    return values
