"""How long a run takes, by what stages took in earlier ones."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_jax.config import differences, plain
from cai_jax.stages.stage import Run, Stage
from cai_jax.stages.workdir import CONFIG
from cai_jax.storage.sealed import MANIFEST, NotWholeError, read_sealed

LATEST = 20  # runs beside this one that are looked at


@dataclass
class TimeLeft:
    """What stages are to take, at the pace of those that were made meanwhile.

    Attributes:
      expected: seconds by stage that is to be made; None where nothing is known.
      taken: seconds that stages took which were expected.
      told: seconds that were expected of them.
    """

    expected: dict[str, float | None]
    taken: float = 0.0
    told: float = 0.0

    def drop(self, stage: str) -> None:
        """A stage is not to be made any more."""
        self.expected.pop(stage, None)

    def done(self, stage: str, seconds: float) -> None:
        """A stage has been made in so many seconds."""
        if told := self.expected.pop(stage, None):
            self.told += told
            self.taken += seconds

    def __str__(self) -> str:
        """Such as ``; about 12 min left``; empty where nothing is known, or nothing left."""
        known = [seconds for seconds in self.expected.values() if seconds is not None]
        if not known:
            return ""
        seconds = sum(known) * (self.taken / self.told if self.told else 1.0)
        about = f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
        count = len(self.expected)
        return f"; about {about} left" + f" for {len(known)} of {count}" * (len(known) < count)


def time_left(run: Run, stages: Sequence[Stage], places: Sequence[Path], devices: str) -> TimeLeft:
    """What the stages took last where model, devices and config blocks were the same.

    What others took tells nothing of a stage that does more, or elsewhere.

    Args:
      run: that makes the stages.
      stages: that are to be made.
      places: where else than beside this run earlier ones may be.
      devices: as manifests name them.
    """
    settings, beside = plain(run.config), _beside(run.workdir.path)
    expected = dict[str, float | None]()
    for stage in stages:
        blocks = {name: settings[name] for name in ("model", *stage.blocks)}
        folders = [place / stage.name for place in (run.workdir.path, *places, *beside)]
        took = (
            manifest["seconds"]
            for manifest in _manifests(folders)
            if manifest["devices"] == devices
            and not any(differences({n: manifest["config"].get(n) for n in blocks}, blocks))
        )
        expected[stage.name] = next(took, None)
    return TimeLeft(expected)


def _beside(workdir: Path) -> list[Path]:
    """Workdirs of other runs in the same folder, the latest first."""
    try:
        configs = [file for file in workdir.parent.glob(f"*/{CONFIG}") if file.parent != workdir]
        latest = sorted(configs, key=lambda file: file.stat().st_mtime, reverse=True)
    except OSError:  # one goes, or may not be read
        return []
    return [file.parent for file in latest[:LATEST]]


def _manifests(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        try:
            yield read_sealed(folder / MANIFEST)
        except (OSError, NotWholeError):  # not finished, damaged, or of an earlier version
            continue
