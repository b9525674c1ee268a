"""Files that commands write."""

from pathlib import Path


def write_whole(out: Path, text: str) -> None:
    """Writes a file, whole or not at all."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.rename(out)
