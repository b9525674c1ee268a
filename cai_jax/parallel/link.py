"""What the hosts of a run tell each other beside their devices: a TCP connection of each to host 0.

JAX has a coordination service, but when a host never comes or is lost, it aborts the process from
C++ with a stack trace, and of a host that never came it does not say which (measured with jax
0.10.2). So hosts meet here before JAX starts, and watch each other while it runs: whoever is lost
is named, by whoever is left. Standard library only; the lines on the wire are JSON.
"""

import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

log = logging.getLogger("cai_jax")

PULSE = 5.0  # seconds between signs of life
# A machine that loses power closes no connection; it only falls silent. Below JAX's heartbeat
# timeout (hosts.HEARTBEAT), so that a sentence comes before the abort.
SILENCE = 75.0
PATIENCE = 3600.0  # seconds to wait for a host that lives, but lags behind
LONG = 24 * 3600.0  # the same, where one host does something long for all
GRACE = 5.0  # seconds for a host to meet the error of another by itself, and to end
# Exit code where another host was lost or did not come: the same command may succeed when it is
# back. launch/gke_xpk has GKE restart it, but not what ends with 1. EX_TEMPFAIL of sysexits.h.
HOST_LOST = 75


class HostError(ValueError):
    """Hosts that cannot run together; the message names them and the mend."""

    exit_code = 1


class HostLostError(HostError):
    """A host that did not come."""

    exit_code = HOST_LOST


class Link:
    """This host's connections: host 0 has one to every other host, the others have one to it.

    Args:
      address: HOST:PORT where host 0 listens, until all have come.
      count: number of hosts.
      me: this host's number.
      name: this machine's name.
      timeout: seconds to wait for all hosts.

    Raises:
      HostLostError: a host did not come; the message names it.
      HostError: hosts that contradict each other.
    """

    def __init__(self, address: str, count: int, me: int, name: str, timeout: float):
        self.count, self.me = count, me
        self.names = [name]
        self.doing = "start"  # what an error says this host was at
        self._sockets: dict[int, socket.socket] = {}
        self._news = threading.Condition()
        self._said: dict[int, dict[int, Any]] = {}  # question -> host -> (what, value)
        self._answers: dict[int, Any] = {}
        self._asked = 0
        self._ended: set[int] = set()  # hosts that said that they are done
        self._cause = ""  # what ended another host: this one's error may only follow from it
        self._sending = threading.Lock()
        self._stopping = threading.Lock()
        if me == 0:
            self._receive_all(address, timeout)
        else:
            self._go_to_host_0(address, timeout)
        for other in self._sockets:
            threading.Thread(target=self._listen, args=(other,), daemon=True).start()
        threading.Thread(target=self._pulse, daemon=True).start()

    def who(self, host: int) -> str:
        """A host by number and machine."""
        return f"host {host} ({self.names[host]})"

    def ask(
        self, what: str, value: Any, decide: Callable[[list], Any], timeout: float = PATIENCE
    ) -> Any:
        """Every host asks the same and brings a value; host 0 decides, and all get its answer.

        Args:
          what: the question; hosts that ask different ones are out of step.
          value: JSON of this host.
          decide: from the values of all hosts, in order, to JSON; called on host 0.
          timeout: seconds. A host that is not there by then ends the run on all hosts.
        """
        self._asked += 1
        number = self._asked
        if self.me:
            self._send(0, {"ask": [number, what, value]})
            if not self._wait(lambda: number in self._answers, timeout + GRACE):
                self._stop(f"{what}: waited {timeout:.0f} s for {self.who(0)}")
            return self._answers.pop(number)
        self._hear(0, number, what, value)
        if not self._wait(lambda: len(self._said[number]) == self.count, timeout):
            late = [self.who(h) for h in range(self.count) if h not in self._said[number]]
            self._stop(f"{what}: waited {timeout:.0f} s for {', '.join(late)}")
        said = self._said.pop(number)
        if odd := [host for host in said if said[host][0] != what]:
            self._stop(f"{self.who(0)} is at {what!r}, {self.who(odd[0])} at {said[odd[0]][0]!r}")
        answer = decide([said[host][1] for host in range(self.count)])
        for other in self._sockets:
            self._send(other, {"answer": [number, answer]})
        return answer

    def fail(self, error: str) -> NoReturn:
        """Ends this process with an error of its own, and the others with one that names it."""
        with self._stopping:
            if error not in self._cause:  # else all hosts met the same, and say it themselves
                error = self._cause or error
            if self.me:
                self._send(0, {"end": error})
            _say(error)
            if not self.me:
                told = error if error == self._cause else f"{self.who(0)} stopped: {error}"
                self._stop_others(told, after=GRACE)
            os._exit(1)  # JAX would wait at exit for hosts that are about to end as well

    def close(self) -> None:
        """Says that this host is done."""
        for other in self._sockets:
            self._send(other, {"end": ""})

    # Coming together.

    def _receive_all(self, address: str, timeout: float) -> None:
        port, started = int(address.rsplit(":", 1)[1]), time.monotonic()
        dual = socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if dual else socket.AF_INET
        try:
            door = socket.create_server(("", port), family=family, dualstack_ipv6=dual)
        except OSError as error:
            raise HostError(
                f"host 0: cannot listen on port {port} ({error.strerror}); end what uses it, or "
                "give all hosts another --coordinator"
            ) from None
        names, came = {0: self.names[0]}, {0: 0.0}
        refused: HostError | None = None
        with door:
            while len(names) < self.count and not refused:
                left = timeout - (time.monotonic() - started)
                if left <= 0 or (comer := _comer(door, left)) is None:
                    refused = HostLostError(_missing(names, self.count, timeout))
                    break
                connection, hello = comer
                host, count, name = (hello.get(key) for key in ("host", "count", "name"))
                if count != self.count:
                    refused = HostError(
                        f"{name} was started for {count} hosts, host 0 ({names[0]}) for "
                        f"{self.count}; start the same command on every host"
                    )
                elif not 0 < host < self.count:
                    refused = HostError(
                        f"{name} came as host {host}; hosts are numbered from 0 to {self.count - 1}"
                    )
                elif host in names:
                    refused = HostError(
                        f"host {host} came twice, from {names[host]} and from {name}; every host "
                        "needs a --host_id of its own"
                    )
                self._sockets[host if host not in names else -1] = connection
                names[host], came[host] = name, time.monotonic() - started
        if refused:
            self._stop_others(str(refused), refused.exit_code)
            raise refused
        self.names = [names[host] for host in range(self.count)]
        for other in self._sockets:
            self._send(other, {"names": self.names})
        last = max(came, key=came.get)
        before = max(seconds for host, seconds in came.items() if host != last)
        log.info(
            "%d hosts have come; %s last, %.1f s after the others",
            self.count,
            self.who(last),
            came[last] - before,
        )

    def _go_to_host_0(self, address: str, timeout: float) -> None:
        host, port = address.rsplit(":", 1)
        deadline = time.monotonic() + timeout
        while True:
            try:
                connection = socket.create_connection((host.strip("[]"), int(port)), timeout=PULSE)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HostLostError(
                        f"host 0 of {self.count} did not answer at {address} within {timeout:.0f} "
                        f"s ({error}); start it there, or open the port to the other hosts"
                    ) from None
                time.sleep(0.2)
        self._sockets[0] = connection
        self._send(0, {"host": self.me, "count": self.count, "name": self.names[0]})
        # Host 0 may have been started later, and waits for the others as long as this one did.
        connection.settimeout(timeout + GRACE)
        message = _line(connection)
        if "names" not in message:
            if message.get("code") == HostError.exit_code:
                raise HostError(message["stop"])
            raise HostLostError(
                message.get("stop") or f"host 0 at {address} ended before all hosts had come"
            )
        self.names = message["names"]

    # Watching.

    def _pulse(self) -> None:
        while True:
            time.sleep(PULSE)
            for other in self._sockets:
                self._send(other, {})

    def _listen(self, other: int) -> None:
        connection = self._sockets[other]
        connection.settimeout(SILENCE)
        why = "its process has ended"
        try:
            with connection.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    self._take(other, json.loads(line))
        except TimeoutError:
            why = f"it has been silent for {SILENCE:.0f} s"
        except (OSError, ValueError) as error:
            why = str(error)
        if other not in self._ended:
            self._stop(
                f"{self.who(other)} was lost during {self.doing}: {why}; when it is back, start "
                "the same command on every host: stages that are finished are kept",
                HOST_LOST,
            )

    def _take(self, other: int, message: dict[str, Any]) -> None:
        if "ask" in message:
            self._hear(other, *message["ask"])
        elif "answer" in message:
            number, answer = message["answer"]
            with self._news:
                self._answers[number] = answer
                self._news.notify_all()
        elif "cause" in message:
            self._cause = message["cause"]
        elif "stop" in message:
            self._cause = message["stop"]
            time.sleep(message["after"])
            self._stop(message["stop"], message["code"])
        elif "end" in message:
            self._ended.add(other)
            if message["end"]:
                self._cause = self._cause or f"{self.who(other)} stopped: {message['end']}"
                for one in self._sockets:
                    self._send(one, {"cause": self._cause})
                time.sleep(GRACE)  # most errors meet all hosts
                self._stop(self._cause)

    def _hear(self, host: int, number: int, what: str, value: Any) -> None:
        with self._news:
            self._said.setdefault(number, {})[host] = what, value
            self._news.notify_all()

    def _wait(self, ready: Callable[[], bool], timeout: float) -> bool:
        with self._news:
            return self._news.wait_for(ready, timeout)

    def _send(self, other: int, message: dict[str, Any]) -> None:
        try:
            with self._sending:
                self._sockets[other].sendall((json.dumps(message) + "\n").encode("utf-8"))
        except OSError:
            pass  # whoever listens to this host names it

    def _stop_others(self, sentence: str, code: int = 1, after: float = 0.0) -> None:
        """Has the other hosts end with a sentence and an exit code; host 0 ends last.

        JAX's coordination service lives in host 0: without it, JAX aborts the others at once.
        """
        for other in self._sockets:
            self._send(other, {"stop": sentence, "code": code, "after": after})
        deadline = time.monotonic() + after + GRACE
        for connection in self._sockets.values():
            connection.settimeout(max(deadline - time.monotonic(), 0.1))
            _wait_for_end(connection)

    def _stop(self, sentence: str, code: int = 1) -> NoReturn:
        with self._stopping:  # the first sentence is the cause, and ends the process
            _say(sentence)
            if not self.me:
                self._stop_others(sentence, code)
            os._exit(code)


def _say(error: str) -> None:
    print(f"\nerror: {error}", file=sys.stderr, flush=True)  # a progress bar may stand in the line


def _comer(door: socket.socket, timeout: float) -> tuple[socket.socket, dict[str, Any]] | None:
    """The next host at the door and what it says; None if none comes in time."""
    deadline = time.monotonic() + timeout
    while (left := deadline - time.monotonic()) > 0:
        door.settimeout(left)
        try:
            connection, _ = door.accept()
        except TimeoutError:
            return None
        connection.settimeout(PULSE)
        hello = _line(connection)
        if isinstance(hello.get("host"), int):
            return connection, hello
        connection.close()  # a port scan, or a load balancer's check
    return None


def _line(connection: socket.socket) -> dict[str, Any]:
    """One message; empty if none comes, or what comes is none. Reads no byte beyond it."""
    line = b""
    try:
        while not line.endswith(b"\n") and (byte := connection.recv(1)):
            line += byte
        message = json.loads(line)
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) else {}


def _wait_for_end(connection: socket.socket) -> None:
    try:
        while connection.recv(1 << 16):
            pass
    except OSError:
        pass


def _missing(names: dict[int, str], count: int, timeout: float) -> str:
    missing = ", ".join(str(host) for host in range(count) if host not in names)
    came = ", ".join(f"{host} ({name})" for host, name in sorted(names.items()))
    many = "hosts" if "," in missing else "host"
    return (
        f"{many} {missing} of {count} did not come within {timeout:.0f} s, only {came}; start the "
        "same command on every host, or see why it failed there"
    )


def differences(cards: Sequence[dict[str, Any]], who: Callable[[int], str]) -> list[str]:
    """What the cards of some hosts say otherwise than host 0's, a line each."""
    lines = []
    for name in sorted(set().union(*cards)):
        for host, card in enumerate(cards):
            if card.get(name) != cards[0].get(name):
                one, other = (str(c.get(name, "absent"))[:40] for c in (cards[0], card))
                lines.append(f"{name}: {one} on {who(0)}, {other} on {who(host)}")
                break
    return lines
