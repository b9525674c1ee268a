"""Folders of configs and texts that people edit: wheels carry them, ``cai-jax init`` copies them.

Paths in configs are relative to the working folder. In a checkout the folders stand at its root.
"""

from pathlib import Path

FOLDERS = ("configs", "constitutions", "datasets", "adapters")
_PACKAGE = Path(__file__).parent


def shipped(folder: str) -> Path:
    """Where one of the folders came with this installation: setup.py puts them into a wheel."""
    installed = _PACKAGE / "share" / folder
    return installed if installed.is_dir() else _PACKAGE.parent / folder


def remedy(missing: str | Path) -> str:
    """What to do about a path at which nothing is; other words where ``init`` was forgotten."""
    here, path = Path.cwd(), Path(missing).absolute()
    first = path.relative_to(here).parts[:1] if path.is_relative_to(here) else ()
    if first and first[0] in FOLDERS and not Path(here, *first).exists():
        return f"run cai-jax init, which puts {first[0]}/ and what else runs need into this folder"
    return "check the path"
