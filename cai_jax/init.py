"""Copies configs, constitutions, datasets and adapters into a folder, to run and to edit.

cai-jax init [FOLDER]

Configs name files relative to the folder that a command runs in: run commands there. Nothing that
is there already is replaced.
"""

import logging
import shutil
from pathlib import Path

from cai_jax.commands.front import start
from cai_jax.shipped import FOLDERS, shipped
from cai_jax.storage.files import resolved

log = logging.getLogger("cai_jax")


def main(files: list[Path]) -> None:
    """Copies the folders, all or none.

    Raises:
      ValueError: several folders are named, or one of the folders is there already.
    """
    if len(files) > 1:
        raise ValueError(f"{files[1]}: a second folder; name one, or none for this one")
    folder = resolved(files[0] if files else ".")
    for name in FOLDERS:
        if (folder / name).exists():
            raise ValueError(f"{folder / name}: is there already; move it away, or name a folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name in FOLDERS:
        shutil.copytree(shipped(name), folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    log.info("%s: has %s", folder, ", ".join(f"{name}/" for name in FOLDERS))
    enter = "" if folder == Path.cwd() else f"cd {folder} && "
    log.info("next: %spython -m cai_jax.main --config=configs/microworld.py", enter)


if __name__ == "__main__":
    start(main, files=True)
