"""A run that is told to end leaves at the next point where nothing is lost, on all hosts the same.

Machines that are taken away, schedulers and people say so by SIGTERM or SIGINT, to one host or to
all; Google's machines by a notice as well, which may come where no signal reaches the run (in a
container, say). JAX's own preemption service knows no deadline, no SIGINT and no notice, and needs
several hosts.
"""

import os
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import NoReturn

import jax

from cai_jax.parallel import hosts
from cai_jax.parallel.exit_codes import PREEMPTED
from cai_jax.parallel.google import on_google, wait_for_notice
from cai_jax.redaction import without_secrets

PATIENCE = 20.0  # seconds to reach such a point, or else to end without; GKE and Slurm give 30


class PreemptedError(SystemExit):
    """The run leaves, and all that is needed to go on is kept."""


class _Notice:
    """Whether this run is told to end, and at which of its safe points."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.passed = 0  # safe points, which all hosts pass in the same order
        self.told = False
        self.last: int | None = None  # the safe point at which all hosts leave

    def agree(self) -> None:
        """Takes the first safe point that no host has passed; on a thread of its own."""
        with self.changed:
            self.told, passed = True, self.passed
        passed = max(hosts.gather_aside("leave", passed, PATIENCE))
        with self.changed:
            self.last = passed + 1
            self.changed.notify_all()

    def pass_point(self) -> bool:
        with self.changed:
            self.passed += 1
            if self.told:
                self.changed.wait_for(lambda: self.last is not None, PATIENCE)
            return self.last is not None and self.passed >= self.last


_notice = _Notice()


def should_leave() -> bool:
    """Whether to save and leave here; every host asks at the same points, in the same order."""
    return _notice.pass_point()


def leave() -> NoReturn:
    """Ends the run; whoever calls this has saved.

    Raises:
      PreemptedError: always.
    """
    raise PreemptedError(PREEMPTED)


@contextmanager
def leaving_when_told(command: Sequence[str]) -> Iterator[None]:
    """While it lasts, SIGTERM, SIGINT and a notice have the run leave, with a code and a sentence.

    The second signal, and ``PATIENCE`` seconds without a safe point, end the process at once: a
    program may compile for minutes.

    Args:
      command: that goes on.
    """
    # Python runs handlers between two steps of the main thread, which may be deep in a program;
    # what is written to the socket is read at once.
    ours, kernel = socket.socketpair()
    kernel.setblocking(False)
    names, notices = list[str](), list[str]()
    told, over = threading.Event(), threading.Event()

    def say() -> None:
        who = next(iter((*notices, *names)), "another host")
        kept = "what is finished is kept, go on with:"
        again = without_secrets(shlex.join(command))
        print(f"\ntold to end by {who}; {kept}\n  {again}", file=sys.stderr, flush=True)

    def end() -> NoReturn:
        say()
        os._exit(PREEMPTED)

    def listen() -> None:
        while number := ours.recv(1):
            names.append(signal.Signals(number[0]).name)
            if len(names) > 1:
                end()
            told.set()
            hosts.announce("leave")

    def watch() -> None:
        if wait_for_notice(over):
            notices.append("a notice that this machine is taken away")
            told.set()
            hosts.announce("leave")

    def follow() -> None:
        # A host is lost, which the link tells; or what one brought cannot be read.
        with suppress(jax.errors.JaxRuntimeError, hosts.HostError):
            while not told.wait(1) and not hosts.announced("leave"):
                if over.is_set():
                    return
            threading.Thread(target=give_up, daemon=True).start()
            _notice.agree()

    def give_up() -> None:
        if not over.wait(PATIENCE):
            end()

    global _notice
    _notice = _Notice()
    signals = (signal.SIGTERM, signal.SIGINT)
    before = [signal.signal(number, lambda *_: None) for number in signals]
    held = signal.set_wakeup_fd(kernel.fileno(), warn_on_full_buffer=False)
    for work in (listen, follow, *((watch,) if on_google() else ())):
        threading.Thread(target=work, daemon=True).start()
    try:
        yield
    except PreemptedError:
        if hosts.is_main():
            say()
        raise
    finally:
        over.set()
        _notice = _Notice()
        signal.set_wakeup_fd(held)
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)
        kernel.close()
