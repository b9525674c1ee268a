"""Files that commands write."""

import os
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from cai_jax.config import naming
from cai_jax.storage.files import disk_problem, resolved
from cai_jax.storage.files import write_whole as replace_whole
from cai_jax.storage.sealed import sealed_above


def out_file(named: str | Path) -> Path:
    """The file that a flag names to be written; a device or a pipe has no name but that.

    Raises:
      ValueError: there can be no such path.
    """
    if not str(named):
        raise ValueError("is empty; name a file")
    path, as_named = resolved(named), Path(named).expanduser()
    return as_named if _is_written_through(as_named) else path


def check_out(
    *named: str | Path, flag: str = "--out", inputs: Iterable[str | Path | None] = ()
) -> None:
    """Refuses, before models run, files of a flag that could not be written after, or must not be.

    Args:
      named: the files.
      flag: that names them.
      inputs: files and folders that the command reads; what is no path there is passed over.

    Raises:
      ConfigError: one is a folder, or its own folder cannot be made or written to; or it is an
        input, lies in one, or in what a stage of a run has sealed.
    """
    read = [Path(os.path.realpath(os.path.expanduser(path))) for path in inputs if path]
    with naming(flag):
        for out in map(out_file, named):
            _check_no_input(out, read)
            check_unsealed(out)
            _check_writable(out)


def check_unsealed(out: Path) -> None:
    """Refuses what lies in a stage's folder of a run, whose files are all that it is to have.

    Raises:
      ValueError: it lies in one.
    """
    if folder := sealed_above(out):
        raise ValueError(f"{out} lies in {folder}, which a stage of a run sealed; name another")


def _check_no_input(out: Path, inputs: Iterable[Path]) -> None:
    if _is_written_through(out):
        return
    for path in inputs:
        same = out.exists() and path.exists() and out.samefile(path)
        if same or path == out or path in out.parents:
            where = "is" if same or path == out else f"lies in {path}, which is"
            raise ValueError(f"{out} {where} read by this command; name another file")


def _check_writable(out: Path) -> None:
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name a file")
    if _is_written_through(out):
        return
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"{out} cannot be written ({error}); name another file") from error


def write_whole(named: str | Path, text: str) -> None:
    """Writes a file, whole or not at all; a link stays one, and a device or pipe is written to.

    Raises:
      ValueError: it cannot be written.
    """
    out = out_file(named)
    try:
        if _is_written_through(out):
            out.write_text(text, encoding="utf-8")
            return
        out.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(out, text)
    except OSError as error:
        problem = disk_problem(error, out) or f"{out} cannot be written ({error}); name another"
        raise ValueError(problem) from error


def append_line(named: str | Path, line: str) -> None:
    """Adds a line to a file, and waits until it is on the disk; half a line before it stays alone.

    Raises:
      ValueError: it cannot be written.
    """
    out = out_file(named)
    try:
        with open(out, "ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                line = line if file.read() == b"\n" else f"\n{line}"
            file.write(f"{line}\n".encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        problem = disk_problem(error, out) or f"{out} cannot be written ({error}); name another"
        raise ValueError(problem) from error


def _is_written_through(out: Path) -> bool:
    """Whether it is there and no regular file: nothing may be put in its place."""
    return out.exists() and not stat.S_ISREG(out.stat().st_mode)
