"""States of a loop, saved while it goes on, and the last whole one of them given back.

A state counts once it is sealed: after Orbax has committed it, a thread hashes its files while the
loop goes on. One of which a file is not what was written is deleted, and the one before it counts.
"""

import logging
import shutil
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from cai_jax.parallel import hosts, preemption
from cai_jax.storage.sealed import MANIFEST, problem_of, seal_folder

log = logging.getLogger("cai_jax")
COMMITTED_SECONDS = 0.05  # from one look whether a state is committed to the next


@dataclass(frozen=True)
class SavePolicy:
    """When a loop is saved.

    Attributes:
      every: steps from one save to the next.
      keep: states that are kept, the last ones.
      max_share: of the time, that saves may hold the loop up; where they are slow, there are fewer.
    """

    every: int = 10
    keep: int = 2
    max_share: float = 0.02


@dataclass(frozen=True)
class Saved:
    """A state that a loop goes on from."""

    step: int
    state: Any
    notes: dict[str, Any]  # JSON


class Saver:
    """Saves the state of one loop, by Orbax: asynchronously, each host what its devices hold.

    Args:
      folder: of the states; None: nothing is saved, nor is there anything to go on from.
      policy: when.
    """

    def __init__(self, folder: Path | None = None, policy: SavePolicy | None = None):
        self.folder, self.policy = folder, policy or SavePolicy()
        self._manager: Any = None
        self._leaving = False
        self._step = -1  # of the last state
        self._not_before = 0.0  # by the monotonic clock
        self._sealing: threading.Thread | None = None
        if folder:
            if hosts.is_main():
                _drop_damaged(folder)
            hosts.sync("states that are whole")
            options = ocp.CheckpointManagerOptions(max_to_keep=self.policy.keep, create=True)
            self._manager = ocp.CheckpointManager(folder.absolute(), options=options)

    def restore(self, like: Any) -> Saved | None:
        """The last state; None: there is none.

        Args:
          like: the state, abstract; its shardings need not be those of the one that was saved.
        """
        if self._manager is None:
            return None
        latest = self._manager.latest_step()
        step = hosts.from_main("the last state", int, -1 if latest is None else latest)
        if step < 0:
            return None
        args = {"state": ocp.args.StandardRestore(_named(like)), "notes": ocp.args.JsonRestore()}
        found = self._manager.restore(step, args=ocp.args.Composite(**args))
        names, tree = _named(like), jax.tree.structure(like)
        self._step = step
        state = jax.tree.unflatten(tree, [found["state"][name] for name in names])
        return Saved(step, state, found["notes"])

    def due(self, step: int, last: bool = False) -> bool:
        """Whether to call ``save`` after so many steps; the same on all hosts.

        It is, every so many steps, after the ``last`` one, and where the run is told to end.

        Raises:
          PreemptedError: it is told to end, and there is nothing to save.
        """
        self._leaving = preemption.should_leave()
        if self._manager is None or step == self._step:
            self._leave_if_told()
            return False
        if self._leaving or last:
            return True
        if step % self.policy.every:
            return False
        return hosts.from_main("a state is due", bool, time.monotonic() >= self._not_before)

    def save(self, step: int, state: Any, notes: Mapping[str, Any]) -> None:
        """Starts to save a state, whose buffers may be reused as soon as this returns.

        Args:
          step: how many are done.
          state: a tree of arrays.
          notes: JSON that goes with it.

        Raises:
          PreemptedError: the run is told to end; the state is on disk.
        """
        started = time.monotonic()
        self._wait_until_sealed()
        args = {"state": ocp.args.StandardSave(_named(state)), "notes": ocp.args.JsonSave(notes)}
        self._manager.save(step, args=ocp.args.Composite(**args))
        if hosts.is_main():
            self._sealing = threading.Thread(target=self._seal, args=(step,), daemon=True)
            self._sealing.start()
        self._step, ended = step, time.monotonic()
        self._not_before = ended + (ended - started) / self.policy.max_share
        self._leave_if_told()

    def close(self) -> None:
        """Waits until what was saved is on disk, and sealed."""
        if self._manager:
            self._manager.wait_until_finished()
            self._wait_until_sealed()
            self._manager.close()

    def _seal(self, step: int) -> None:
        """Seals a state when it is committed; one that never is has no folder."""
        assert self.folder
        while self._manager.is_saving_in_progress():
            time.sleep(COMMITTED_SECONDS)
        if (folder := self.folder / str(step)).is_dir():
            with suppress(OSError):  # a disk that is full or gone tells the loop at the next save
                seal_folder(folder, {"step": step})

    def _wait_until_sealed(self) -> None:
        if self._sealing:
            self._sealing.join()

    def _leave_if_told(self) -> None:
        if self._leaving:
            self.close()
            preemption.leave()


def _drop_damaged(folder: Path) -> None:
    """Deletes the last states as long as they are not what was written, each with a warning."""
    steps = [int(path.name) for path in folder.glob("*") if path.name.isdigit()]
    for step in sorted(steps, reverse=True):
        problem = problem_of(folder / str(step))
        if not problem:
            return
        if (folder / str(step) / MANIFEST).exists():
            log.warning("the state after step %d is damaged, and not used: %s", step, problem)
        else:  # killed before it was sealed
            log.info("the state after step %d was not saved to its end, and is not used", step)
        shutil.rmtree(folder / str(step))
    if steps:
        log.warning("%s: no saved state is whole; this training starts over", folder)


def _named(tree: Any) -> dict[str, Any]:
    """Leaves by their paths: what any version of Orbax, and any layout, can read."""
    return {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(tree)}
