"""Files that commands write."""

import stat
import tempfile
from pathlib import Path

from cai_jax.storage.files import disk_problem, resolved
from cai_jax.storage.files import write_whole as replace_whole


def out_file(named: str) -> Path:
    """The file that a flag names to be written; a device or a pipe has no name but that.

    Raises:
      ValueError: there can be no such path.
    """
    path = resolved(named)
    return Path(named).expanduser() if _is_written_through(Path(named).expanduser()) else path


def check_writable(out: Path) -> None:
    """Refuses, before models run, a file that could not be written after.

    Raises:
      ValueError: it is a folder, or its own folder cannot be made or written to.
    """
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name a file")
    if _is_written_through(out):
        return
    try:
        folder = resolved(out).parent
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{out} cannot be written ({error}); name another file") from error


def write_whole(out: Path, text: str) -> None:
    """Writes a file, whole or not at all; a link stays one, and a device or pipe is written to.

    Raises:
      ValueError: it cannot be written.
    """
    try:
        if _is_written_through(out):
            out.write_text(text, encoding="utf-8")
            return
        target = resolved(out)
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_whole(target, text)
    except OSError as error:
        problem = disk_problem(error, out) or f"{out} cannot be written ({error}); name another"
        raise ValueError(problem) from error


def _is_written_through(out: Path) -> bool:
    """Whether it is there and no regular file: nothing may be put in its place."""
    return out.exists() and not stat.S_ISREG(out.stat().st_mode)
