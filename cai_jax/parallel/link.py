"""The link between the hosts of a run: they meet before JAX starts, and watch each other after.

JAX's coordination service does the rest (hosts.py), but it cannot do this. If a host never comes or
is lost, it aborts the process from C++, 0.05 s after host 0 has died or at its heartbeat timeout
after another has, with a stack trace and without the name of a machine (measured with jax 0.10.2).
So every host keeps a channel to host 0, and whoever is lost is named by whoever is left.

Who knows the run's token belongs to the run; who does not is refused (channel.py). JAX's service
and collectives, which start later, trust everybody who reaches them: that is for a firewall.
"""

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from typing import Annotated, NoReturn

from pydantic import ConfigDict, Field, TypeAdapter
from pydantic.dataclasses import dataclass

from cai_jax.parallel.channel import HANDSHAKE, Channel, Door, WrongTokenError, host_and_port
from cai_jax.parallel.exit_codes import HOST_LOST
from cai_jax.redaction import without_secrets

log = logging.getLogger("cai_jax")

PULSE = 5.0  # seconds between signs of life
# A machine that loses power closes no connection; it only falls silent. Below JAX's heartbeat
# timeout (hosts.HEARTBEAT), so that a sentence comes before the abort.
SILENCE = 75.0
GRACE = 5.0  # seconds for a host to meet the error of another by itself, and to end
SHOWN = 10  # differences named in one error


_TYPED = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


@dataclass(frozen=True, config=_TYPED)
class Hello:
    """Who comes to host 0, and what must be the same there, by name."""

    host: Annotated[int, Field(ge=0)]
    count: int
    name: Annotated[str, Field(max_length=300)]
    card: dict[str, str]


@dataclass(frozen=True, config=_TYPED)
class AllHaveCome:
    """Host 0 says so to all, with their machines."""

    names: list[str]


@dataclass(frozen=True, config=_TYPED)
class SignOfLife:
    """Nothing has happened."""

    alive: bool = True


@dataclass(frozen=True, config=_TYPED)
class Stop:
    """End, with a sentence and an exit code."""

    stop: str
    code: Annotated[int, Field(ge=0, le=255)] = 1
    after: Annotated[float, Field(ge=0, le=60)] = 0.0  # seconds


@dataclass(frozen=True, config=_TYPED)
class Cause:
    """What ended another host: an error that comes now may only follow from it."""

    cause: str


@dataclass(frozen=True, config=_TYPED)
class End:
    """A host is done, or ends with an error; empty: it is done."""

    error: str


Message = SignOfLife | Stop | Cause | End
_HELLO: TypeAdapter[Hello] = TypeAdapter(Hello)
_LET_IN: TypeAdapter[SignOfLife] = TypeAdapter(SignOfLife)
_MEETING: TypeAdapter[AllHaveCome | Stop] = TypeAdapter(AllHaveCome | Stop)
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


class HostError(ValueError):
    """Hosts that cannot run together; the message names them and the remedy."""

    exit_code = 1


class HostLostError(HostError):
    """A host that did not come."""

    exit_code = HOST_LOST


class Link:
    """This host's channels: host 0 has one to every other host, the others have one to it.

    Args:
      address: HOST:PORT where host 0 listens, until all have come.
      count: number of hosts.
      me: this host's number.
      card: what must be the same on all hosts, by name.
      token: the run's secret.
      timeout: seconds to wait for all hosts.

    Raises:
      HostLostError: a host did not come; the message names it.
      HostError: hosts that contradict each other, or differ.
    """

    def __init__(
        self, address: str, count: int, me: int, card: dict[str, str], token: bytes, timeout: float
    ) -> None:
        self.count, self.me = count, me
        self.names = [socket.gethostname()]
        self.doing = "start"  # what an error says this host was at
        self._channels: dict[int, Channel] = {}
        self._ended: set[int] = set()  # hosts that said that they are done
        self._cause = ""  # what ended another host: this one's error may only follow from it
        self._stopping = threading.Lock()
        hello = Hello(me, count, self.names[0], card)
        if me == 0:
            self._receive_all(address, hello, token, timeout)
        else:
            self._go_to_host_0(address, hello, token, timeout)
        for other in self._channels:
            threading.Thread(target=self._listen, args=(other,), daemon=True).start()
        threading.Thread(target=self._pulse, daemon=True).start()

    def who(self, host: int) -> str:
        """A host by number and machine."""
        return f"host {host} ({self.names[host]})"

    def fail(self, error: str) -> NoReturn:
        """Ends this process with an error of its own, and the others with one that names it."""
        with self._stopping:
            if error not in self._cause:  # else all hosts met the same, and say it themselves
                error = self._cause or error
            if self.me:
                self._send(0, End(error))
            _say(error)
            if not self.me:
                told = error if error == self._cause else f"{self.who(0)} stopped: {error}"
                self._stop_others(told, after=GRACE)
            os._exit(1)  # JAX would wait at exit for hosts that are about to end as well

    def close(self) -> None:
        """Says that this host is done."""
        for other in self._channels:
            self._send(other, End(""))

    # Coming together.

    def _receive_all(self, address: str, hello: Hello, token: bytes, timeout: float) -> None:
        started = time.monotonic()
        hellos, came = {0: hello}, {0: 0.0}
        try:
            with closing(_open_door(address, token)) as door:
                while len(hellos) < self.count:
                    if comer := door.accept_host():
                        channel, hello = comer
                        host = hello.host
                        self._channels[host if host not in hellos else -1] = channel
                        _check_hello(hello, hellos)
                        hellos[host], came[host] = hello, time.monotonic() - started
                    elif time.monotonic() - started > timeout:
                        raise HostLostError(_missing(hellos, self.count, timeout, door.refused))
            self.names = [hellos[host].name for host in range(self.count)]
            cards = [hellos[host].card for host in range(self.count)]
            compare("the command", cards, self.who, "Start the same command, code and packages.")
        except HostError as error:
            self._stop_others(str(error), error.exit_code)
            raise
        for other in self._channels:
            self._send(other, AllHaveCome(self.names))
        *_, before, last = came  # in the order in which they came
        late = came[last] - came[before]
        log.info(
            "%d hosts have come; %s last, %.1f s after the others", self.count, self.who(last), late
        )

    def _go_to_host_0(self, address: str, hello: Hello, token: bytes, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while True:
            try:
                connection = socket.create_connection(host_and_port(address), timeout=PULSE)
                channel = Channel(connection, token, accepted=False)
                channel.send(hello)
                # Within HANDSHAKE host 0 says that it has read it, or hangs up on one that is slow:
                # who gave up earlier would come twice.
                channel.receive(_LET_IN, 2 * HANDSHAKE)
                break
            except WrongTokenError:
                raise HostError(
                    f"host 0 at {address} has another token than host {self.me} "
                    f"({self.names[0]}); give both the same, or give none and one shared workdir"
                ) from None
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HostLostError(
                        f"host 0 of {self.count} did not answer at {address} within {timeout:.0f} "
                        f"s ({error}); start it there, or open the port to the other hosts"
                    ) from None
                time.sleep(0.2)
        self._channels[0] = channel
        try:
            # Host 0 may have been started later, and waits for the others as long as this one did.
            message = channel.receive(_MEETING, timeout + GRACE)
        except OSError:
            message = Stop(f"host 0 at {address} ended before all had come", HOST_LOST)
        if isinstance(message, Stop):
            raise (HostLostError if message.code == HOST_LOST else HostError)(message.stop)
        self.names = message.names

    # Watching.

    def _pulse(self) -> None:
        while True:
            time.sleep(PULSE)
            for other in self._channels:
                self._send(other, SignOfLife())

    def _listen(self, other: int) -> None:
        try:
            while True:
                self._take(other, self._channels[other].receive(_MESSAGE, SILENCE))
        except TimeoutError:
            why = f"it has been silent for {SILENCE:.0f} s"
        except OSError as error:
            why = str(error)
        if other not in self._ended:
            self._stop(
                f"{self.who(other)} was lost during {self.doing}: {why}; when it is back, start "
                "the same command on every host: what is finished is kept",
                HOST_LOST,
            )

    def _take(self, other: int, message: Message) -> None:
        if isinstance(message, Cause):
            self._cause = message.cause
        elif isinstance(message, Stop):
            self._cause = message.stop
            time.sleep(message.after)
            self._stop(message.stop, message.code)
        elif isinstance(message, End):
            self._ended.add(other)
            if message.error:
                self._cause = self._cause or f"{self.who(other)} stopped: {message.error}"
                for one in self._channels:
                    self._send(one, Cause(self._cause))
                time.sleep(GRACE)  # most errors meet all hosts
                self._stop(self._cause)

    def _send(self, other: int, message: Message | AllHaveCome) -> None:
        with suppress(OSError):  # whoever listens to this host names it
            self._channels[other].send(message)

    def _stop_others(self, sentence: str, code: int = 1, after: float = 0.0) -> None:
        """Has the other hosts end with a sentence and an exit code; host 0 ends last.

        JAX's coordination service lives in host 0: without it, JAX aborts the others at once.
        """
        for other in self._channels:
            self._send(other, Stop(sentence, code, after))
        deadline = time.monotonic() + after + GRACE
        for channel in self._channels.values():
            channel.wait_for_end(max(deadline - time.monotonic(), 0.1))

    def _stop(self, sentence: str, code: int = 1) -> NoReturn:
        with self._stopping:  # the first sentence is the cause, and ends the process
            _say(sentence)
            if not self.me:
                self._stop_others(sentence, code)
            os._exit(code)


def _say(error: str) -> None:
    # A progress bar may stand in the line.
    print(f"\nerror: {without_secrets(error)}", file=sys.stderr, flush=True)


def _open_door(address: str, token: bytes) -> Door[Hello]:
    try:
        return Door(address, token, _HELLO, SignOfLife())
    except OSError as error:
        raise HostError(
            f"host 0: cannot listen at {address} ({error.strerror}); end what uses the port, or "
            "give all hosts another --coordinator, an address of host 0"
        ) from None


def _check_hello(hello: Hello, hellos: dict[int, Hello]) -> None:
    host, name, count = hello.host, hello.name, hellos[0].count
    if hello.count != count:
        raise HostError(
            f"{name} was started for {hello.count} hosts, host 0 ({hellos[0].name}) for "
            f"{count}; start the same command on every host"
        )
    if not 0 < host < count:
        raise HostError(f"{name} came as host {host}; hosts are numbered from 0 to {count - 1}")
    if host in hellos:
        raise HostError(
            f"host {host} came twice, from {hellos[host].name} and from {name}; every host "
            "needs a --host_id of its own"
        )


def _missing(hellos: dict[int, Hello], count: int, timeout: float, strangers: Iterable[str]) -> str:
    missing = ", ".join(str(host) for host in range(count) if host not in hellos)
    came = ", ".join(f"{host} ({hello.name})" for host, hello in sorted(hellos.items()))
    refused = "".join(f"; refused {stranger}" for stranger in strangers)
    return (
        f"{'hosts' if ',' in missing else 'host'} {missing} of {count} did not come within "
        f"{timeout:.0f} s, only {came}{refused}; start the same command on every host, or see why "
        "it failed there"
    )


def compare(
    what: str, cards: Sequence[dict[str, str]], who: Callable[[int], str], remedy: str
) -> None:
    """Refuses hosts of which one says otherwise than host 0.

    Args:
      what: the subject of the error.
      cards: of all hosts; texts by name.
      who: a host by number and machine.
      remedy: the error's last line.

    Raises:
      HostError: names what differs, each with the first host where it does.
    """
    lines = []
    for name in sorted(set().union(*cards)):
        for host, card in enumerate(cards):
            if card.get(name) != cards[0].get(name):
                one, other = (c.get(name, "absent")[:40] for c in (cards[0], card))
                lines.append(f"{name}: {one} on {who(0)}, {other} on {who(host)}")
                break
    if lines:
        more = [f"and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        raise HostError(
            "\n  ".join([f"{what} differs between hosts:", *lines[:SHOWN], *more, remedy])
        )
