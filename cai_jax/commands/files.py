"""Files that commands write."""

import tempfile
from pathlib import Path


def check_writable(out: Path) -> None:
    """Refuses, before models run, a file that could not be written after.

    Raises:
      ValueError: it is a folder, or its own folder cannot be made or written to.
    """
    if out.is_dir():
        raise ValueError(f"{out} is a folder; name a file")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise ValueError(f"{out} cannot be written ({error}); name another file") from error


def write_whole(out: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(out)
