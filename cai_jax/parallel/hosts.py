"""Several hosts as one run: JAX started on all of them, arrays gathered, files written by one.

Every host runs every jitted call and reads every record; host 0, the main host, alone writes.
Where only one host takes part, each function here does nothing, or what it does for one.
"""

import hashlib
import itertools
import json
import os
import re
import secrets
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn, TypeVar, cast

import jax
import numpy as np
from jax._src.clusters import ClusterEnv
from jax._src.distributed import global_state  # its client: no public name leads to it
from jax.experimental import multihost_utils
from pydantic import TypeAdapter

from cai_jax.parallel.channel import own_address, read_message
from cai_jax.parallel.exit_codes import PREEMPTED
from cai_jax.parallel.link import HostError, HostLostError, Link, compare

PATIENCE = 3600.0  # seconds to wait for a host that lives, but lags behind
LONG = 24 * 3600.0  # the same, where one host does something long for all
# Seconds without a sign of life after which JAX gives a host up. Link names a lost host before,
# and this is for what its thread cannot see, so: later than Link's, and within two minutes.
HEARTBEAT = 100
TOKEN_VARIABLE = "CAI_LINK_TOKEN"
TOKEN_FILE = ".link_token"
Value = TypeVar("Value")

_link: Link | None = None
_exchanges = itertools.count(1)  # numbers of what all hosts call in the same order


@contextmanager
def together(
    multihost: bool,
    coordinator: str,
    num_hosts: int,
    host_id: int,
    timeout: float,
    settings: Mapping[str, Any],
    workdir: Path,
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
      workdir: a folder that all hosts share; see ``run_token``.

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
    token = run_token(workdir, host_id, timeout)
    _link = Link(coordinator, num_hosts, host_id, card(settings), token, timeout)
    try:
        # Ours (preemption.py) has a deadline, and hears of SIGINT too.
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            coordinator,
            num_hosts,
            host_id,
            local_devices,
            initialization_timeout=max(int(timeout), 60),
            heartbeat_timeout_seconds=HEARTBEAT,
            coordinator_bind_address=own_address(coordinator),
        )
        jax.devices()  # waits for the devices of all hosts
        yield
    except BaseException as error:
        if not (isinstance(error, SystemExit) and error.code == PREEMPTED):
            _fail(_link, error)
        _link.close()  # all hosts leave alike; see preemption.py
        raise
    _link.close()


def _fail(link: Link, error: BaseException) -> NoReturn:
    if not isinstance(error, HostError):
        # Collectives break when a host is lost, with errors of any type (also ValueError) that do
        # not name it. The link does, and ends the process meanwhile.
        time.sleep(2)
    if not isinstance(error, ValueError | FloatingPointError | OSError):
        traceback.print_exception(error)
    link.fail(str(error) or type(error).__name__)


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


def _from_environment(timeout: float) -> tuple[str, int, int, Sequence[int] | None]:
    # What jax.distributed.initialize() finds out; asked for here, for hosts meet before it.
    address, count, me, local_devices = ClusterEnv.auto_detect_unset_distributed_params(
        None, None, None, None, None, int(timeout)
    )
    if address is None or count is None or me is None:
        raise HostError(
            "--multihost: JAX finds no TPU VM, GKE, Slurm or MPI here; give --coordinator, "
            "--num_hosts and --host_id"
        )
    return address, count, me, local_devices


def run_token(workdir: Path, host: int, timeout: float) -> bytes:
    """The secret by which hosts know each other.

    It is CAI_LINK_TOKEN where the environment has that. Else it is a file of the workdir that only
    its owner can read; host 0 makes it, and it stays there. So whoever can read the workdir as the
    owner of the run can take part.

    Raises:
      HostLostError: there is none after ``timeout`` seconds.
      HostError: host 0 cannot make it, as on a read-only disk.
    """
    if given := os.environ.get(TOKEN_VARIABLE):
        return given.encode()
    file = workdir / TOKEN_FILE
    if host == 0 and not file.exists():
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            descriptor, partial = tempfile.mkstemp(dir=workdir, prefix=TOKEN_FILE)  # mode 0600
        except OSError as error:
            raise HostError(
                f"{file} cannot be made ({error.strerror}); give all hosts the same "
                f"{TOKEN_VARIABLE}, or another workdir"
            ) from error
        with open(descriptor, "w") as out:
            out.write(secrets.token_hex(32))
        os.replace(partial, file)
    if not becomes_true(file.exists, timeout):
        raise HostLostError(
            f"{file}: host {host} cannot see it after {timeout:.0f} s; start host 0, which makes "
            f"it, in a workdir that all hosts mount, or give all hosts the same {TOKEN_VARIABLE}"
        )
    return file.read_bytes()


def card(settings: Mapping[str, Any]) -> dict[str, str]:
    """What must be the same on all hosts: settings, packages and our code, by name."""
    package = Path(__file__).parents[1]
    code = {
        f"code {path.relative_to(package.parent)}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in package.rglob("*.py")
    }
    required = [r for r in metadata.requires("cai_jax") or () if "extra ==" not in r]
    names = [re.split(r"[^\w.-]", requirement)[0] for requirement in required]
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


def _exchange(link: Link, what: str, value: Any, patience: float = PATIENCE) -> list[str]:
    """What every host brings to the same call, in their order, unread; waits for the last host.

    If a host dies meanwhile, the link ends this process before JAX does.

    Args:
      link: to the other hosts.
      what: the call; hosts that make different ones are out of step.
      value: JSON, of at most ``channel.LINE_BYTES``.
      patience: seconds to wait for the others.

    Raises:
      HostError: a host is late, or out of step; the message names it.
    """
    number, client = next(_exchanges), cast(Any, global_state.client)
    brought = f"{json.dumps(what)}\n{json.dumps(value)}"
    client.key_value_set(f"cai_jax/{number}/{link.me}", brought)
    try:
        client.wait_at_barrier(f"cai_jax/{number}", int(1000 * patience))
    except jax.errors.JaxRuntimeError as error:
        if "DEADLINE_EXCEEDED" not in str(error):
            raise
    lines = [text.partition("\n")[::2] for text in _brought(link, client, f"cai_jax/{number}")]
    if late := [link.who(host) for host, (call, _) in enumerate(lines) if not call]:
        raise HostError(f"{what}: waited {patience:.0f} s for {', '.join(late)}")
    # A host that has come here has read all of the exchange before.
    client.key_value_delete(f"cai_jax/{number - 1}/{link.me}")
    calls = [_read(link, host, "its call", str, call) for host, (call, _) in enumerate(lines)]
    for host, call in enumerate(calls):
        if call != calls[0]:
            raise HostError(f"{link.who(0)} is at {calls[0]!r}, {link.who(host)} at {call!r}")
    return [value for _, value in lines]


def _brought(link: Link, client: Any, place: str) -> list[str]:
    """What every host set there, in their order; empty: it has set nothing."""
    found = dict(client.key_value_dir_get(place))
    return [found.get(f"{place}/{host}", "") for host in range(link.count)]


def _read(link: Link, host: int, what: str, kind: type[Value], line: str) -> Value:
    """What a host brought, every field checked: JAX's service takes values from everybody.

    Raises:
      HostError: it is of another kind, or too long.
    """
    try:
        return read_message(TypeAdapter(kind), line)
    except ConnectionError as error:
        raise HostError(
            f"{what}, of {link.who(host)}: {error}; close JAX's port to all but the run's hosts"
        ) from None


def sync(what: str, patience: float = PATIENCE) -> None:
    """Waits until every host is here; one ``patience`` seconds behind ends the run, named."""
    if _link:
        _exchange(_link, what, None, patience)


def from_main(what: str, kind: type[Value], value: Value, patience: float = PATIENCE) -> Value:
    """The main host's value (JSON of a kind) on every host; ``patience`` as for ``sync``."""
    if not _link:
        return value
    brought = _exchange(_link, what, value if is_main() else None, patience)
    return _read(_link, 0, what, kind, brought[0])


def check_same(what: str, values: Mapping[str, str], remedy: str) -> None:
    """Refuses hosts of which one has other values.

    Raises:
      HostError: on every host; names what differs.
    """
    if _link:
        brought = _exchange(_link, what, dict(values))
        cards = [_read(_link, n, what, dict[str, str], line) for n, line in enumerate(brought)]
        compare(what, cards, _link.who, remedy)


def announce(what: str) -> None:
    """Tells the other hosts something, at any time and from any thread; see ``announced``."""
    if _link and (client := cast(Any, global_state.client)):
        client.key_value_set(f"cai_jax/announced/{what}/{_link.me}", "", allow_overwrite=True)


def announced(what: str) -> bool:
    """Whether a host of several has announced it."""
    if not _link or not (client := cast(Any, global_state.client)):
        return False
    return bool(client.key_value_dir_get(f"cai_jax/announced/{what}"))


def gather_aside(what: str, number: int, patience: float) -> list[int]:
    """A number of every host, while their main threads do other things; called once for each."""
    if not _link or not (client := cast(Any, global_state.client)):
        return [number]
    client.key_value_set(f"cai_jax/aside/{what}/{_link.me}", str(number))
    client.wait_at_barrier(f"cai_jax/aside/{what}", int(1000 * patience))
    brought = _brought(_link, client, f"cai_jax/aside/{what}")
    return [_read(_link, host, what, int, line) for host, line in enumerate(brought)]


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

    A disk that cannot be written to may still hold a finished run: there the other hosts are to
    see what the main host does.

    Raises:
      HostError: some do not see what the main host writes or finds there.
      OSError: there is no such folder, and none can be made.
    """
    if not _link:
        return
    mark = folder / f".seen-{os.getpid()}-{time.time_ns()}"
    names, does = [mark.name], "writes"
    if is_main():
        try:
            folder.mkdir(parents=True, exist_ok=True)
            mark.touch()
        except OSError:
            if not folder.is_dir():
                raise
            names = [name for name in os.listdir(folder) if not name.startswith(".")]
            does = "finds"
    names, does = from_main("the workdir", tuple[list[str], str], (names, does))
    seen = becomes_true(lambda: all((folder / name).exists() for name in names), 5)
    brought = _exchange(_link, "who sees the workdir", seen)
    sees = [_read(_link, host, "the workdir", bool, line) for host, line in enumerate(brought)]
    if is_main() and does == "writes":
        mark.unlink()
    if blind := [_link.who(host) for host, seen in enumerate(sees) if not seen]:
        raise HostError(
            f"{folder}: {', '.join(blind)} cannot see what {_link.who(0)} {does} there; "
            "name a folder that all hosts mount (NFS, Filestore, a bucket)"
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
