"""One owner of a folder at a time.

The owner holds a lock of the operating system on a file that says who it is, so a dead process of
the same machine is told at once. Between machines whose file system does not share locks, the
owner beats: it writes a number that grows. Whoever wants the folder watches it for three beats.
"""

import fcntl
import json
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TextIO

from cai_jax.storage.files import DISK_ERRORS

log = logging.getLogger("cai_jax")
LOCK = ".lock"
BEAT_SECONDS = 30.0  # three are more than the minute for which mounted buckets show old files


class TakenError(ValueError):
    """Another process has the folder; the message says which."""


@contextmanager
def owned(folder: Path, beat_seconds: float = BEAT_SECONDS) -> Iterator[None]:
    """Holds a folder, which is made if need be, and removed if nothing came into it.

    A folder that cannot be written to has no owner, and needs none.

    Raises:
      TakenError: another process holds it.
      OSError: something is in its way.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = _locked(folder / LOCK)
    except OSError as error:
        if error.errno in DISK_ERRORS and os.path.isdir(folder):
            yield
            return
        raise
    if file is None:
        deadline = time.monotonic() + 1
        while not (owner := _owner(folder / LOCK)) and time.monotonic() < deadline:
            time.sleep(0.05)  # it has only just come
        raise _taken(folder, owner)
    with file:
        _wait_for_beats(folder, beat_seconds)
        owner = {"host": socket.gethostname(), "process": os.getpid()}
        owner |= {"since": time.strftime("%Y-%m-%d %H:%M:%S %Z"), "beats": 0}
        _say(file, owner)
        stop = threading.Event()
        beating = threading.Thread(target=_beat, args=(file, owner, stop, beat_seconds))
        beating.daemon = True
        beating.start()
        try:
            yield
        finally:
            stop.set()
            beating.join()
            (folder / LOCK).unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


def _locked(path: Path) -> TextIO | None:
    """The file, locked; None if another process has it."""
    while True:
        file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o644), "r+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        # The owner before may have removed it after it was opened here.
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), os.stat(path)):
                return file
        file.close()


def _wait_for_beats(folder: Path, seconds: float) -> None:
    """Refuses a folder that a process of another machine still has."""
    owner = _owner(folder / LOCK)
    if not owner or owner.get("host") == socket.gethostname():
        return  # the lock of this machine is free, so its owner is dead
    log.info("%s: waiting %.0f s for a sign of %s", folder, 3 * seconds, _name(owner))
    deadline = time.monotonic() + 3 * seconds
    while time.monotonic() < deadline:
        time.sleep(seconds / 10)
        if (found := _owner(folder / LOCK)) and found != owner:
            raise _taken(folder, found)


def _beat(file: TextIO, owner: dict[str, Any], stop: threading.Event, seconds: float) -> None:
    while not stop.wait(seconds):
        owner["beats"] += 1
        _say(file, owner)


def _say(file: TextIO, owner: dict[str, Any]) -> None:
    with suppress(OSError):  # a full disk stops no run that writes nothing else
        file.seek(0)
        file.write(json.dumps(owner))
        file.truncate()  # after: it is never empty for who reads it meanwhile
        file.flush()
        os.fsync(file.fileno())


def _owner(path: Path) -> dict[str, Any]:
    """What the lock's file says; empty if nothing yet."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _name(owner: dict[str, Any]) -> str:
    if not {"process", "host", "since"} <= set(owner):
        return "another process"
    return "process {process} on {host}, there since {since},".format(**owner)


def _taken(folder: Path, owner: dict[str, Any]) -> TakenError:
    return TakenError(
        f"{folder}: {_name(owner)} runs in it; wait until that ends, stop it, or give another "
        "folder"
    )
