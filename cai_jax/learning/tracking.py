"""What a loop measured, on Weights & Biases too, where the environment names a project of it.

``WANDB_PROJECT`` asks for that. The other variables, as ``WANDB_MODE`` and ``WANDB_DIR``, are
wandb's own. What cannot be sent, once training has begun, ends no training.
"""

import importlib.util
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cai_jax.storage.sealed import read_sealed

PROJECT = "WANDB_PROJECT"
REMEDY = f"run wandb login, set WANDB_MODE=offline, or unset {PROJECT}"
log = logging.getLogger("cai_jax")


def check_tracking() -> None:
    """Refuses a project that nothing could be written to; for the host that would write.

    Raises:
      ValueError: wandb is not installed, or has no key that its server takes.
    """
    if not os.environ.get(PROJECT):
        return
    found = importlib.util.find_spec("wandb")
    if found is None or found.origin is None:  # a folder wandb/, as it leaves one, has no origin
        raise ValueError(
            f"{PROJECT} is set, but wandb is not installed: pip install wandb, or unset {PROJECT}"
        )
    import wandb

    if wandb.setup().settings.mode not in (None, "online"):
        return
    try:
        known = wandb.login(prompt=False)
    except Exception as error:  # no network, another key: its errors have no common class
        raise ValueError(f"{PROJECT} is set, but wandb says: {error}; {REMEDY}") from error
    if not known:
        raise ValueError(f"{PROJECT} is set, but wandb has no key; {REMEDY}")


class Tracker:
    """A run of the project: one training of a stage.

    Args:
      folder: of that training, somewhere in a workdir, whose config is shown.
      name: of the loop.
    """

    def __init__(self, folder: Path, name: str):
        self._run: Any = None
        self._try(lambda: self._open(folder, name))

    def _open(self, folder: Path, name: str) -> None:
        import wandb

        files = (parent / "config.json" for parent in folder.parents)
        config = next((file for file in files if file.exists()), None)
        workdir = config.parent if config else folder.parent
        _, *part = folder.relative_to(workdir).parts  # of a stage that trains several
        self._run = wandb.init(
            group=workdir.name,
            name="/".join([workdir.name, name, *part]),
            job_type=name,
            config=read_sealed(config) if config else {},
            reinit="create_new",
            # What a command line says may be secret, and so may what code is.
            settings=wandb.Settings(
                console="off", x_disable_meta=True, disable_git=True, disable_code=True
            ),
        )
        # wandb's own steps never go back, as those of a text may, or of a loop that goes on.
        self._run.define_metric("*", step_metric="step")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """The scalars of a step."""
        self._send({"step": step, **scalars})

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Texts of a step, by name."""
        self._send({"step": step, **texts})

    def close(self, failed: bool = False) -> None:
        """Ends the run, once all is sent."""
        if self._run:
            self._try(lambda: self._run.finish(exit_code=int(failed)))

    def _send(self, values: Mapping[str, Any]) -> None:
        if self._run:
            self._try(lambda: self._run.log(values))

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:  # of a service that only watches
            log.warning("Weights & Biases has no more of this training: %s", error)
            self._run = None


def open_tracker(folder: Path, name: str) -> Tracker | None:
    """One, if the environment asks for it."""
    return Tracker(folder, name) if os.environ.get(PROJECT) else None
