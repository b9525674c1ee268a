"""The folder of a run: one folder a finished stage, each with a manifest."""

import fcntl
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cai_jax.config import (
    STAGES,
    Config,
    ConfigError,
    differences,
    naming,
    parse_config,
    plain,
    results_of,
)
from cai_jax.parallel import hosts
from cai_jax.storage.files import partial_of, put_in_place, resolved, write_whole
from cai_jax.storage.lock import owned
from cai_jax.storage.sealed import (
    MANIFEST,
    NotWholeError,
    check_folder,
    read_sealed,
    repair,
    seal_folder,
    sealed_text,
)

log = logging.getLogger("cai_jax")
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
        """Manifest of a finished stage.

        Raises:
          NotWholeError: the stage is not finished, or its manifest is damaged.
        """
        return read_sealed(self.folder(stage) / MANIFEST)

    def fingerprint(self, stage: str, hash_all: bool = False) -> str | None:
        """Fingerprint of a stage's folder; None if it is not finished.

        What is not as it was written is not finished: sizes of all files are compared, and hashes
        of small ones, or of all.
        """
        folder = self.folder(stage)
        if not folder.exists():
            return None
        try:
            return check_folder(folder, hash_all=hash_all)["fingerprint"]
        except NotWholeError as error:
            _warn_once(f"{stage}: does not count as finished: {error}")
            return None

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Keeps other runs out, on the main host for all, and ends what a killed run began.

        Raises:
          ConfigError: another run is in the folder.
        """
        if not hosts.is_main():
            yield
            return
        with ExitStack() as stack:
            with naming("config.workdir"):
                stack.enter_context(owned(self.path))
            for stage in STAGES:
                repair(self.folder(stage))
            yield

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
            if not _says(file, plain(config)):
                write_whole(file, sealed_text(plain(config)))

    def open_partial(self, stage: str) -> Path:
        """An empty folder for a stage that runs."""
        partial = partial_of(self.folder(stage))
        if hosts.is_main():
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        hosts.sync(f"{stage} starts")
        return partial

    def open_progress(self, stage: str, fingerprint: str) -> Path:
        """What a stage of this fingerprint goes on from; empty where none was cut off.

        It lies beside the folder of the stage, which holds results alone and is written as a whole
        each time: so no file of a stage that was cut off can be half of one start, half of another.
        """
        folder = self._progress(stage)
        file = folder / "fingerprint"
        if hosts.is_main() and not (file.exists() and file.read_text("utf-8") == fingerprint):
            self.drop_progress(stage)
            folder.mkdir(parents=True)
            file.write_text(fingerprint, encoding="utf-8")
        hosts.sync(f"{stage} goes on")
        return folder

    def drop_progress(self, stage: str) -> None:
        """Deletes it, the fingerprint first: half of it is never taken for the whole."""
        if hosts.is_main():
            (self._progress(stage) / "fingerprint").unlink(missing_ok=True)
            shutil.rmtree(self._progress(stage), ignore_errors=True)

    def _progress(self, stage: str) -> Path:
        return self.path / f".{stage}.progress"

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
            for name, file in constitutions.items():
                shutil.copy(resolved(file), partial / f"{name}.yaml")
            seal_folder(partial, manifest)
            put_in_place(self.folder(manifest["stage"]), partial)
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


def read_config(file: Path) -> Config:
    """The config of a run.

    Raises:
      ValueError: the file is damaged, or of another version.
    """
    return parse_config(read_sealed(file))


@cache
def _warn_once(problem: str) -> None:
    if hosts.is_main():
        log.warning(problem)


def _says(file: Path, config: Mapping[str, Any]) -> bool:
    """Whether a sealed file holds this config, in which other secrets may be cut."""
    try:
        return not any(differences(read_sealed(file), config))
    except NotWholeError:
        return False


def _other_config(file: Path, config: Config) -> str:
    """How the config of a workdir differs; empty where results are the same."""
    try:
        there = read_config(file)
    except ValueError as error:
        return f"{file.name} is of another version, or damaged: {error}"
    changed = [
        f"{field}: {a!r} there, {b!r} here"
        for field, a, b in differences(results_of(there), results_of(config))
    ]
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
        partial = partial_of(target)
        shutil.rmtree(partial, ignore_errors=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, partial, copy_function=_link)
        put_in_place(target, partial)
    hosts.sync(f"{target} is copied")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
