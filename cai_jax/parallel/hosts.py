"""Several hosts as one run: JAX started on all of them, arrays gathered, files written by one.

Every host runs every jitted call and reads every record; host 0, the main host, alone writes.
Where only one host takes part, each function here does nothing, or what it does for one.
"""

import hashlib
import os
import re
import socket
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from cai_jax.parallel.link import LONG, PATIENCE, HostError, Link, differences

# Seconds without a sign of life after which JAX gives a host up. Link names a lost host before,
# and this is for what its thread cannot see, so: later than Link's, and within two minutes.
HEARTBEAT = 100
SHOWN = 10  # differences named in one error

_link: Link | None = None


@contextmanager
def together(
    multihost: bool,
    coordinator: str,
    num_hosts: int,
    host_id: int,
    timeout: float,
    settings: Mapping[str, Any],
) -> Iterator[None]:
    """Brings the hosts together, checks that they are alike, and starts JAX on them.

    While it lasts, a host that fails or is lost ends all, with an error that names it.

    Args:
      multihost: ask the environment for the others (TPU VM, GKE, Slurm).
      coordinator: HOST:PORT of host 0 where the environment does not know; empty with neither.
      num_hosts: with ``coordinator``; 0 if not given.
      host_id: with ``coordinator``; -1 if not given.
      timeout: seconds to wait for a host to come.
      settings: nested; must be the same on all hosts.

    Raises:
      HostLostError: a host did not come.
      HostError: flags that do not fit, or hosts that differ.
    """
    global _link
    check_flags(multihost, coordinator, num_hosts, host_id)
    local_devices = None
    if multihost:
        coordinator, num_hosts, host_id, local_devices = _from_environment(timeout)
    if not coordinator or num_hosts == 1:
        yield
        return
    _link = Link(coordinator, num_hosts, host_id, socket.gethostname(), timeout)
    try:
        check_same("the command", card(settings), "Start the same command, code and packages.")
        # Its handler of SIGTERM only notes the signal; a run that is told to end should end.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            coordinator,
            num_hosts,
            host_id,
            local_devices,
            initialization_timeout=max(int(timeout), 60),
            heartbeat_timeout_seconds=HEARTBEAT,
        )
        jax.devices()  # waits for the devices of all hosts
        yield
    except BaseException as error:
        _fail(error)
    _link.close()


def _fail(error: BaseException) -> NoReturn:
    if not isinstance(error, HostError):
        # Collectives break when a host is lost, with errors of any type (also ValueError) that do
        # not name it. The link does, and ends the process meanwhile.
        time.sleep(2)
    if not isinstance(error, ValueError | FloatingPointError | OSError):
        traceback.print_exception(error)
    _link.fail(str(error) or type(error).__name__)


def check_flags(multihost: bool, coordinator: str, num_hosts: int, host_id: int) -> None:
    """Refuses flags that do not say which hosts there are.

    Raises:
      HostError: some contradict each other, or some are missing.
    """
    by_hand = {"coordinator": coordinator, "num_hosts": num_hosts, "host_id": host_id + 1}
    given = [f"--{name}" for name, value in by_hand.items() if value]
    missing = [f"--{name}" for name, value in by_hand.items() if not value]
    if multihost and given:
        raise HostError(
            f"--multihost and {given[0]}: the first asks the environment, the second tells; give "
            "one of them"
        )
    if given and missing:
        raise HostError(
            f"{' and '.join(given)} without {' and '.join(missing)}; give all three, or "
            "--multihost on a TPU VM, on GKE or under Slurm"
        )
    if given and not re.fullmatch(r".+:\d+", coordinator):
        raise HostError(f"--coordinator={coordinator}: must be HOST:PORT of host 0")
    if given and host_id >= num_hosts:
        raise HostError(
            f"--host_id={host_id}: hosts are numbered from 0 to {num_hosts - 1} = --num_hosts - 1"
        )


def _from_environment(timeout: float) -> tuple[str, int, int, Any]:
    # What jax.distributed.initialize() finds out; asked for here, for hosts meet before it.
    from jax._src.clusters import ClusterEnv

    found = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(timeout)
    )
    if None in found[:3]:
        raise HostError(
            "--multihost: JAX finds no TPU VM, GKE, Slurm or MPI here; give --coordinator, "
            "--num_hosts and --host_id"
        )
    return found


def card(settings: Mapping[str, Any]) -> dict[str, str]:
    """What must be the same on all hosts: settings, packages and our code, by name."""
    package = Path(__file__).parents[1]
    code = {
        f"code {path.relative_to(package.parent)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in package.rglob("*.py")
    }
    required = [r for r in metadata.requires("cai_jax") or () if "extra ==" not in r]
    names = [re.match(r"[\w.-]+", requirement)[0] for requirement in required]
    packages = {name: _version(name) for name in ("jaxlib", "libtpu", "numpy", *names)}
    return {"python": sys.version.split()[0], **packages, **code, **_flat(settings)}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


def _flat(tree: Any, name: str = "config") -> dict[str, str]:
    if not isinstance(tree, Mapping):
        return {name: repr(tree)}
    return {k: v for key in tree for k, v in _flat(tree[key], f"{name}.{key}").items()}


def is_main() -> bool:
    """Whether this host writes files."""
    return _link is None or _link.me == 0


def write_text(file: Path, text: str) -> None:
    """Writes a file on the main host."""
    if is_main():
        file.write_text(text, encoding="utf-8")


def note(doing: str) -> None:
    """What this host is at, for the error that ends it if another is lost."""
    if _link:
        _link.doing = doing


def sync(what: str, patience: float = PATIENCE) -> None:
    """Waits until every host is here; one ``patience`` seconds behind ends the run, named."""
    if _link:
        _link.ask(what, None, lambda _: None, patience)


def from_main(what: str, value: Any, patience: float = PATIENCE) -> Any:
    """The main host's value (JSON) on every host; ``patience`` as for ``sync``."""
    if not _link:
        return value
    return _link.ask(what, value if is_main() else None, lambda values: values[0], patience)


def check_same(what: str, values: Mapping[str, Any], mend: str) -> None:
    """Refuses hosts of which one has other values.

    Raises:
      HostError: on every host; names what differs.
    """
    if not _link:
        return
    lines = _link.ask(what, dict(values), lambda cards: differences(cards, _link.who))
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise HostError(
            "\n  ".join([f"{what} differs between hosts:", *lines[:SHOWN], *more, mend])
        )


@contextmanager
def main_first(what: str) -> Iterator[None]:
    """The main host does it before the others: downloads into a cache that they may share.

    What is done may wait for no other host, so it holds no jitted call on arrays of the mesh.
    """
    if not is_main():
        sync(f"{what}, on the main host", LONG)
    yield
    if is_main():
        sync(f"{what}, on the main host", LONG)
    sync(f"{what}, on every host", LONG)


def check_shared(folder: Path) -> None:
    """Checks that all hosts see one and the same folder.

    Raises:
      HostError: some do not see what the main host writes there.
    """
    if not _link:
        return
    name = from_main("a name", f".seen-{os.getpid()}-{time.time_ns()}")
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    sync("the workdir")
    sees = becomes_true((folder / name).exists, 5)
    blind = _link.ask("sees it", sees, lambda all_: [i for i, one in enumerate(all_) if not one])
    if is_main():
        (folder / name).unlink()
    if blind:
        raise HostError(
            f"{folder}: {', '.join(map(_link.who, blind))} cannot see what {_link.who(0)} writes "
            "there; name a folder that all hosts mount (NFS, Filestore, a bucket)"
        )


def becomes_true(check: Callable[[], bool], seconds: float) -> bool:
    """Whether something about files holds soon: network file systems lag behind."""
    deadline = time.monotonic() + seconds
    while not check():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.5)
    return True


def fetch(tree: Any) -> Any:
    """A tree of arrays as NumPy, on every host all of it, wherever the devices are that hold it."""

    def whole(x: Any) -> Any:
        if not isinstance(x, jax.Array) or x.is_fully_addressable or x.is_fully_replicated:
            return x
        return multihost_utils.process_allgather(x, tiled=True)

    return jax.device_get(jax.tree.map(whole, tree))


def digest(arrays: Any) -> str:
    """A short hash of a tree of NumPy arrays."""
    hashed = hashlib.sha256()
    for array in jax.tree.leaves(arrays):
        hashed.update(np.ascontiguousarray(array).tobytes())
    return hashed.hexdigest()[:16]
