"""Channels between processes that know one secret token: lines of JSON over TCP.

A message is a dataclass, every field of which is checked where it is received.

Both ends prove that they know the token by an HMAC over two nonces, and every later line carries an
HMAC as well. So the token does not cross the wire, and a recorded line is worth nothing. Lines are
not encrypted. How long a line may be and how deep is bounded, and so is the time that a stranger
may take. Nothing is parsed before whoever sent it has proved itself.
"""

import hmac
import itertools
import json
import logging
import secrets
import socket
import threading
import time
from collections import deque
from dataclasses import asdict
from queue import SimpleQueue
from typing import Any, Generic, TypeVar, cast

from pydantic import TypeAdapter, ValidationError

log = logging.getLogger("cai_jax")

HANDSHAKE = 10.0  # seconds for each line of a process that has not proved itself
MAX_HANDSHAKES = 256  # at the same time; a host that is turned away tries again
PROOF_BYTES = 128  # of a line of the handshake: a nonce, or an HMAC of nothing
LINE_BYTES = 1 << 20  # of a later line; the longest describes the command, about 20 kB
Message = TypeVar("Message")


class WrongTokenError(ConnectionError):
    """The other end does not know the token."""


class Channel:
    """Messages to and from one other process that knows the token.

    Args:
      connection: closed if the other end does not prove itself.
      token: the secret.
      accepted: whether this end accepted the connection.

    Raises:
      WrongTokenError: the other end does not know the token.
      OSError: it was silent, closed the connection, or said something else.
    """

    def __init__(self, connection: socket.socket, token: bytes, accepted: bool) -> None:
        self._connection, self._buffer, self._limit = connection, b"", PROOF_BYTES
        self._sending = threading.Lock()
        # An HMAC covers who sends a line and which one it is: no line counts twice, or backwards.
        self._mine, self._theirs = (b"accepted", b"came")[:: 1 if accepted else -1]
        self._numbers = {self._mine: itertools.count(), self._theirs: itertools.count()}
        try:
            nonce = secrets.token_hex(32).encode()
            connection.settimeout(HANDSHAKE)
            connection.sendall(nonce + b"\n")
            other = self._line(HANDSHAKE)
            if len(other) != len(nonce):
                raise ConnectionError("what it sent is no handshake")
            self._key = hmac.digest(token, nonce + other if accepted else other + nonce, "sha256")
            self._send(b"")
            self._receive(HANDSHAKE)
        except OSError:
            connection.close()
            raise
        self._limit = LINE_BYTES

    def send(self, message: Any) -> None:
        """Sends a message, a dataclass; several threads may."""
        self._send(json.dumps(asdict(message)).encode())

    def receive(self, kind: TypeAdapter[Message], seconds: float) -> Message:
        """The next message.

        Args:
          kind: of what it must be, a dataclass or one of several.
          seconds: to wait for it.

        Raises:
          WrongTokenError: who sent it does not know the token.
          OSError: there came none, or another than this.
        """
        return read_message(kind, self._receive(seconds))

    def _send(self, text: bytes) -> None:
        with self._sending:
            self._connection.sendall(self._code(self._mine, text) + b" " + text + b"\n")

    def _receive(self, seconds: float) -> bytes:
        code, _, text = self._line(seconds).partition(b" ")
        if not hmac.compare_digest(code, self._code(self._theirs, text)):
            raise WrongTokenError("it does not know the run's token")
        return text

    def wait_for_end(self, seconds: float) -> None:
        """Waits ``seconds`` for the other process to close the connection."""
        try:
            self._connection.settimeout(seconds)
            while self._connection.recv(LINE_BYTES):
                pass
        except OSError:
            pass

    def _code(self, sender: bytes, text: bytes) -> bytes:
        signed = b"%s %d %s" % (sender, next(self._numbers[sender]), text)
        return hmac.digest(self._key, signed, "sha256").hex().encode()

    def _line(self, seconds: float) -> bytes:
        deadline = time.monotonic() + seconds
        while b"\n" not in self._buffer:
            if len(self._buffer) == self._limit:
                raise ConnectionError(f"it sent a line of more than {self._limit} bytes")
            self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
            more = self._connection.recv(self._limit - len(self._buffer))
            if not more:
                raise ConnectionError("it closed the connection")
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class Door(Generic[Message]):
    """Listens at one address of this machine, and lets in who knows the token and says who it is.

    Each that comes has a thread, so that one who is silent keeps nobody waiting.

    Args:
      address: HOST:PORT.
      token: the secret.
      kind: of the first message of each.
      welcome: that answers it.

    Raises:
      OSError: this machine has no such address, or its port is in use.
    """

    def __init__(
        self, address: str, token: bytes, kind: TypeAdapter[Message], welcome: Any
    ) -> None:
        own = own_address(address)
        host, port = host_and_port(own)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=MAX_HANDSHAKES)
        self._socket.settimeout(0.1)
        log.info("waiting for hosts at %s", own)
        self._token, self._kind, self._welcome = token, kind, welcome
        self._let_in: SimpleQueue[tuple[Channel, Message]] = SimpleQueue()
        self.refused: deque[str] = deque(maxlen=3)  # the last ones, and why

    def accept_host(self) -> tuple[Channel, Message] | None:
        """The channel to one that was let in and its first message; None if there is none soon."""
        try:
            connection, (peer, *_) = self._socket.accept()
        except OSError:  # nobody came, or one who has gone
            pass
        else:
            if threading.active_count() > MAX_HANDSHAKES:
                self._refuse(connection, peer, "too many came at the same time")
            else:
                threading.Thread(target=self._meet, args=(connection, peer), daemon=True).start()
        return None if self._let_in.empty() else self._let_in.get()

    def close(self) -> None:
        """Listens no longer."""
        self._socket.close()

    def _meet(self, connection: socket.socket, peer: str) -> None:
        try:
            channel = Channel(connection, self._token, accepted=True)
            first = channel.receive(self._kind, HANDSHAKE)
            channel.send(self._welcome)  # it is let in: until it knows, it comes again
            self._let_in.put((channel, first))
        except OSError as error:
            self._refuse(connection, peer, str(error))

    def _refuse(self, connection: socket.socket, peer: str, why: str) -> None:
        connection.close()
        self.refused.append(f"{peer} ({why})")
        log.warning("refused a connection from %s: %s", peer, why)


def read_message(kind: TypeAdapter[Message], line: str | bytes) -> Message:
    """What a line of JSON says.

    Args:
      kind: of what it must be.
      line: of any length and depth.

    Raises:
      ConnectionError: it is longer than ``LINE_BYTES``, or says another thing than this.
    """
    if len(line) > LINE_BYTES:
        raise ConnectionError(f"it sent a line of more than {LINE_BYTES} bytes")
    try:  # which refuses what is nested deeply as well
        return kind.validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        field = ".".join(map(str, first["loc"])) or "the line"
        problem = f"{field}: {first['msg']}"[:200]
        raise ConnectionError(f"what it sent is no message ({problem})") from None


def host_and_port(address: str) -> tuple[str, int]:
    """Both parts of HOST:PORT or [HOST]:PORT."""
    host, port = address.rsplit(":", 1)
    return host.strip("[]"), int(port)


def own_address(address: str) -> str:
    """The same as IP:PORT, with the first IP address that this machine finds for HOST.

    Raises:
      OSError: it finds none.
    """
    found = socket.getaddrinfo(*host_and_port(address), type=socket.SOCK_STREAM)
    ip, port = cast(tuple[str, int], found[0][4][:2])
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"
