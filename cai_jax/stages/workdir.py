"""The folder of a run: one folder a finished stage, each with a manifest."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cai_jax.config import Config, ConfigError, differences, parse_config, results_of
from cai_jax.parallel import hosts

MANIFEST = "manifest.json"
CONFIG = "config.json"
VISIBLE_SECONDS = 120  # that a network file system may show what was there before


class Workdir:
    """Artifacts of a run."""

    def __init__(self, path: Path):
        self.path = path

    def folder(self, stage: str) -> Path:
        """Where a finished stage leaves its files."""
        return self.path / stage

    def manifest(self, stage: str) -> dict[str, Any]:
        """Manifest of a finished stage."""
        return json.loads((self.folder(stage) / MANIFEST).read_text(encoding="utf-8"))

    def fingerprint(self, stage: str) -> str | None:
        """Fingerprint of a stage's folder; None if it is not finished."""
        there = (self.folder(stage) / MANIFEST).exists()
        return self.manifest(stage)["fingerprint"] if there else None

    def claim(self, config: Config) -> None:
        """Writes the config into the folder, or checks that the folder is this config's.

        Raises:
          ConfigError: it was made with another config.
        """
        file = self.path / CONFIG
        try:
            hosts.check_shared(self.path)
        except hosts.HostError as error:
            raise hosts.HostError(f"config.workdir: {error}") from error
        there = file.exists() and not config.rerun_changed
        if there and (problem := _other_config(file, config)):
            raise ConfigError(
                f"{self.path}: {problem}\n  Give another --config.workdir, or "
                "--config.rerun_changed=True to redo the stages that this changes"
            )
        hosts.sync("the config of the workdir")
        if hosts.is_main():
            self.path.mkdir(parents=True, exist_ok=True)
        hosts.write_text(file, json.dumps(asdict(config), indent=2) + "\n")

    def open_partial(self, stage: str) -> Path:
        """An empty folder for a stage that runs."""
        partial = self.path / f".{stage}.partial"
        if hosts.is_main():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        hosts.sync(f"{stage} starts")
        return partial

    def finish(
        self, partial: Path, manifest: Mapping[str, Any], constitutions: Mapping[str, str]
    ) -> None:
        """Puts a stage's folder in its place; the manifest makes it a finished one.

        Args:
          partial: the folder.
          manifest: of the stage.
          constitutions: files that are copied into it, by what the copies are called.
        """
        hosts.sync(f"{manifest['stage']} ends")
        if hosts.is_main():
            text = json.dumps(manifest, indent=2) + "\n"
            (partial / MANIFEST).write_text(text, encoding="utf-8")
            for name, file in constitutions.items():
                shutil.copy(file, partial / f"{name}.yaml")
            final = self.folder(manifest["stage"])
            _replace(final, partial)
        hosts.sync(f"{manifest['stage']} is kept")

    def wait_until_visible(self, stage: str, fingerprint: str) -> None:
        """Waits until this host sees the stage that the main one has put in place.

        Raises:
          OSError: it does not see it.
        """
        if not hosts.becomes_true(lambda: self.fingerprint(stage) == fingerprint, VISIBLE_SECONDS):
            raise OSError(
                f"{self.folder(stage)}: finished on the main host, but not seen on this one after "
                f"{VISIBLE_SECONDS} s; mount the workdir with a shorter attribute cache"
            )


def _other_config(file: Path, config: Config) -> str:
    """How the config of a workdir differs; empty where results are the same."""
    try:
        there = parse_config(json.loads(file.read_text(encoding="utf-8")))
    except ValueError as error:
        return f"{file.name} is of another version: {error}"
    changed = differences(results_of(there), results_of(config))
    return "\n  ".join(["was made with another config:", *changed]) if changed else ""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds a folder of the stage store; others that want it wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def link_folder(source: Path, target: Path) -> None:
    """Links instead of copies: files of finished stages are replaced, never changed."""
    if hosts.is_main():
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=_link)
        _replace(target, partial)
    hosts.sync(f"{target} is copied")


def _replace(final: Path, new: Path) -> None:
    """Puts a folder in the place of another, which is there until the new one can be."""
    old = final.with_name(f".{final.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
