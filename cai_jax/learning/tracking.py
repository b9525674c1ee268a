"""What a loop measured, on Weights & Biases too, where the environment names a project of it.

``WANDB_PROJECT`` asks for that. The other variables, as ``WANDB_MODE`` and ``WANDB_ENTITY``, are
wandb's own.
"""

import importlib.util
import json
import os
from collections.abc import Mapping
from pathlib import Path

from cai_jax.redaction import without_secrets
from cai_jax.storage.sealed import read_sealed

PROJECT = "WANDB_PROJECT"


def check_tracking() -> None:
    """Refuses a project that nothing could be written to.

    Raises:
      ValueError: wandb is not installed, or knows nobody whose project it could be.
    """
    if not os.environ.get(PROJECT):
        return
    if importlib.util.find_spec("wandb") is None:
        raise ValueError(
            f"{PROJECT} is set, but wandb is not installed: pip install wandb, or unset {PROJECT}"
        )
    import wandb

    if wandb.setup().settings.mode in (None, "online") and not wandb.api.api_key:
        raise ValueError(
            f"{PROJECT} is set, but wandb has no key: run wandb login, set WANDB_MODE=offline, or "
            f"unset {PROJECT}"
        )


class Tracker:
    """A run of a project: one training of a stage.

    Args:
      folder: of the stage, in a workdir whose config is shown.
      name: of the loop.
    """

    def __init__(self, folder: Path, name: str):
        import wandb

        workdir = folder.parent
        config = read_sealed(workdir / "config.json") if (workdir / "config.json").exists() else {}
        self._run = wandb.init(
            group=workdir.name,
            name=f"{workdir.name}/{name}",
            job_type=name,
            config=json.loads(without_secrets(json.dumps(config))),
            reinit="create_new",
            settings=wandb.Settings(console="off"),
        )
        # wandb's own steps never go back, as those of a text may, or of a loop that goes on.
        self._run.define_metric("*", step_metric="step")

    def write_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """The scalars of a step."""
        self._run.log({"step": step, **scalars})

    def write_texts(self, step: int, texts: Mapping[str, str]) -> None:
        """Texts of a step, by name."""
        self._run.log({"step": step, **texts})

    def close(self) -> None:
        """Ends the run, once all is sent."""
        self._run.finish()


def open_tracker(folder: Path, name: str) -> list[Tracker]:
    """One, if the environment asks for it."""
    return [Tracker(folder, name)] if os.environ.get(PROJECT) else []
