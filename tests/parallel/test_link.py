"""Hosts that meet while strangers come to the same port."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from conftest import ROOT

from cai_jax.parallel.channel import HANDSHAKE, LINE_BYTES, Channel, WrongTokenError
from cai_jax.parallel.exit_codes import HOST_LOST
from cai_jax.parallel.hosts import TOKEN_VARIABLE, run_token
from cai_jax.parallel.link import _HELLO, _MEETING, AllHaveCome, Hello, HostError, HostLostError

TOKEN = b"known to the hosts of this run"
CLAIM = Hello(1, 2, "stranger", {})
HOST = """
import logging, sys
from cai_jax.parallel import link

logging.basicConfig(level="INFO", stream=sys.stdout)
address, host, token, timeout = sys.argv[1:]
try:
    here = link.Link(address, 2, int(host), {"seed": "0"}, token.encode(), float(timeout))
except link.HostError as error:
    print("error:", error)
    sys.exit(error.exit_code)
logging.info("together %s", here.names)  # a whole line, whatever other threads log
sys.stdin.readline()
here.close()
"""


class Host:
    """A process that is one of two hosts, without JAX."""

    def __init__(
        self, folder: Path, address: str, host: int, token: bytes = TOKEN, timeout: float = 120
    ):
        self.log = folder / f"host{host}-{token.hex()}.txt"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, "-c", HOST, address, str(host), token.decode(), str(timeout)],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
            )

    def said(self) -> str:
        return self.log.read_text()

    def wait_until_it_says(self, text: str, seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said():
            assert self.process.poll() is None, self.said()
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.02)

    def ends(self) -> int:
        try:
            with suppress(BrokenPipeError):
                self.process.communicate(b"\n", 120)
            return self.process.wait(120)
        finally:
            self.process.kill()


@pytest.fixture
def address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"127.0.0.1:{one.getsockname()[1]}"


def visit(address: str) -> socket.socket:
    host, port = address.split(":")
    return socket.create_connection((host, int(port)), timeout=60)


def meet_and_end(folder: Path, address: str, host_0: Host) -> None:
    """The real host 1 comes, takes its place, and the run ends well on both."""
    host_1 = Host(folder, address, 1)
    for host in (host_1, host_0):  # host 1 first: if it ends early, it says why
        host.wait_until_it_says(f"together {2 * [socket.gethostname()]}")
    assert [host.ends() for host in (host_1, host_0)] == [0, 0]


class Recorder(socket.socket):
    """Keeps what is sent."""

    sent = b""

    def sendall(self, data: bytes) -> None:
        self.sent += data
        super().sendall(data)


def channels() -> tuple[Channel, Channel, Recorder]:
    """Both ends of a channel of this process; the socket of the one that came."""
    one, other = socket.socketpair()
    recorder = Recorder(fileno=one.detach())
    accepted: list[Channel] = []
    thread = threading.Thread(target=lambda: accepted.append(Channel(other, TOKEN, True)))
    thread.start()
    came = Channel(recorder, TOKEN, False)
    thread.join()
    return accepted[0], came, recorder


def say(what: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(what)


def replay(connection: socket.socket) -> None:
    """All that a real host 1 said to another host 0 of a run with this token."""
    _, came, recorder = channels()
    came.send(CLAIM)
    connection.sendall(recorder.sent)


def reflect(connection: socket.socket) -> None:
    for _ in range(2):  # the nonce, the proof
        connection.sendall(connection.recv(4096))


def claim_with_another_token(connection: socket.socket) -> None:
    Channel(connection, b"a guess", accepted=False).send(CLAIM)


LONG_LINE = b"x" * 100_000_000
STRANGERS = {
    "is silent": (say(b""), "timed out"),
    "stops in a line": (say(b'{"host": 1'), "timed out"),
    "leaves": (lambda connection: connection.shutdown(socket.SHUT_WR), "it closed"),
    "says garbage": (say(b"\xff\x00\x80garbage\n"), "no handshake"),
    "asks for a page": (say(b"GET / HTTP/1.1\r\n\r\n"), "no handshake"),
    "sends 100 MB in a line": (say(LONG_LINE), "more than 128 bytes"),
    "sends 100 MB as proof": (say(b"0" * 64 + b"\n" + LONG_LINE), "more than 128 bytes"),
    "claims to be host 1": (say(b'{"host": 1, "count": 2, "name": "stranger"}\n'), "no handshake"),
    "has another token": (claim_with_another_token, "does not know the run's token"),
    "replays a hello": (replay, "does not know the run's token"),
    "reflects what host 0 says": (reflect, "does not know the run's token"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_is_refused_and_the_run_goes_on(tmp_path, address, stranger):
    behave, why = STRANGERS[stranger]
    host_0 = Host(tmp_path, address, 0)
    host_0.wait_until_it_says("waiting for hosts")
    with visit(address) as connection:
        with suppress(OSError):  # host 0 has hung up
            behave(connection)
        started = time.monotonic()
        host_1 = Host(tmp_path, address, 1)
        for host in (host_1, host_0):
            host.wait_until_it_says(f"together {2 * [socket.gethostname()]}")
        assert time.monotonic() - started < HANDSHAKE  # the stranger, still there, blocks nobody
        host_0.wait_until_it_says("refused a connection from 127.0.0.1: ")
    assert why in host_0.said()
    assert [host.ends() for host in (host_1, host_0)] == [0, 0]


def test_many_silent_strangers_keep_no_host_out(tmp_path, address):
    host_0 = Host(tmp_path, address, 0)
    host_0.wait_until_it_says("waiting for hosts")
    crowd = [visit(address) for _ in range(300)]
    meet_and_end(tmp_path, address, host_0)
    assert "too many came at the same time" in host_0.said()
    for connection in crowd:
        connection.close()


def test_a_host_with_another_token_ends_alone(tmp_path, address):
    host_0 = Host(tmp_path, address, 0)
    other = Host(tmp_path, address, 1, b"of another run")
    assert other.ends() == 1
    assert f"host 0 at {address} has another token than host 1" in other.said()
    meet_and_end(tmp_path, address, host_0)


def test_a_host_that_did_not_come_is_named_with_those_that_were_refused(tmp_path, address):
    host_0 = Host(tmp_path, address, 0, timeout=5)
    host_0.wait_until_it_says("waiting for hosts")
    with visit(address) as connection:
        connection.sendall(b"garbage\n")
        assert host_0.ends() == HOST_LOST
    assert "host 1 of 2 did not come within 5 s" in host_0.said()
    assert "refused 127.0.0.1 (what it sent is no handshake)" in host_0.said()


def test_something_else_at_the_address_of_host_0_does_not_end_a_host(tmp_path, address):
    host, port = address.split(":")
    with socket.create_server((host, int(port))) as server:
        host_1 = Host(tmp_path, address, 1)
        for garbage in (b"220 mail ready\r\n", LONG_LINE):
            with closing(server.accept()[0]) as connection, suppress(OSError):
                connection.sendall(garbage)
    host_0 = Host(tmp_path, address, 0)
    for host in (host_0, host_1):
        host.wait_until_it_says("together")
    assert [host.ends() for host in (host_1, host_0)] == [0, 0]


def test_host_0_listens_at_its_own_address_alone(tmp_path, address):
    host_0 = Host(tmp_path, address, 0)
    host_0.wait_until_it_says("waiting for hosts")
    with pytest.raises(ConnectionRefusedError):
        visit(address.replace("127.0.0.1", "127.0.0.2"))
    meet_and_end(tmp_path, address, host_0)


def test_messages_arrive_in_both_directions():
    accepted, came, _ = channels()
    came.send(CLAIM)
    accepted.send(AllHaveCome(["a", "b"]))
    assert accepted.receive(_HELLO, 5) == CLAIM
    assert came.receive(_MEETING, 5) == AllHaveCome(["a", "b"])


def test_a_message_counts_once():
    accepted, came, recorder = channels()
    before = len(recorder.sent)
    came.send(CLAIM)
    recorder.sendall(recorder.sent[before:])
    assert accepted.receive(_HELLO, 5) == CLAIM
    with pytest.raises(WrongTokenError):
        accepted.receive(_HELLO, 5)


def test_a_message_of_another_connection_is_refused():
    accepted, _, recorder = channels()
    _, came, other = channels()
    before = len(other.sent)
    came.send(CLAIM)
    recorder.sendall(other.sent[before:])
    with pytest.raises(WrongTokenError):
        accepted.receive(_HELLO, 5)


def test_a_line_is_bounded_for_hosts_as_well():
    accepted, came, _ = channels()

    def send() -> None:
        with suppress(OSError):
            came.send(Hello(1, 2, "a", {"config": "x" * LINE_BYTES}))

    threading.Thread(target=send, daemon=True).start()
    with pytest.raises(ConnectionError, match=f"more than {LINE_BYTES} bytes"):
        accepted.receive(_HELLO, 5)


def lines(connection: socket.socket, line: bytes) -> None:
    """Says a line of any kind, as who knows the token."""
    Channel(connection, TOKEN, accepted=False)._send(line)


ODD_LINES = {
    "no JSON": (b"hello", "expected value"),
    "not UTF-8": (b'{"host": "\xff"}', "no message"),
    "deep": (b"[" * 100_000, "recursion limit"),
    "another value": (b"[1]", "object"),
    "no host": (b'{"count": 2, "name": "a", "card": {}}', "host: Field required"),
    "a host as text": (b'{"host": "1", "count": 2, "name": "a", "card": {}}', "host: Input should"),
    "host -1": (b'{"host": -1, "count": 2, "name": "a", "card": {}}', "host: Input should be"),
    "half a host": (b'{"host": 1.5, "count": 2, "name": "a", "card": {}}', "host: Input should"),
    "a number as name": (b'{"host": 1, "count": 2, "name": 7, "card": {}}', "name: Input should"),
    "odd card": (b'{"host": 1, "count": 2, "name": "a", "card": {"a": []}}', "card.a: Input"),
    "more fields": (b'{"host": 1, "count": 2, "name": "a", "card": {}, "stop": ""}', "stop: "),
}


def test_an_odd_line_is_one_sentence_and_takes_no_place(tmp_path, address):
    host_0 = Host(tmp_path, address, 0)
    host_0.wait_until_it_says("waiting for hosts")
    for number, (line, why) in enumerate(ODD_LINES.values(), 1):
        with visit(address) as connection:
            lines(connection, line)
            while host_0.said().count("refused a connection from 127.0.0.1: ") < number:
                assert host_0.process.poll() is None, host_0.said()
                time.sleep(0.02)
        assert why in host_0.said().splitlines()[-1]
    meet_and_end(tmp_path, address, host_0)
    said = host_0.said()
    assert "Traceback" not in said
    assert max(map(len, said.splitlines())) < 400


def test_the_token_of_a_workdir_is_made_once_and_only_its_owner_can_read_it(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    token = run_token(tmp_path / "work", 0, 1)
    assert len(token) == 64
    assert run_token(tmp_path / "work", 0, 1) == run_token(tmp_path / "work", 1, 1) == token
    (file,) = (tmp_path / "work").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    assert run_token(tmp_path / "other", 0, 1) != token


def test_a_token_of_the_environment_needs_no_file(tmp_path, monkeypatch):
    monkeypatch.setenv(TOKEN_VARIABLE, "from outside")
    assert run_token(tmp_path / "work", 0, 1) == b"from outside"
    assert not (tmp_path / "work").exists()


def test_a_host_that_sees_no_token_says_where_it_looked(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(HostLostError, match=r"work/\.link_token: host 1 cannot see it after 0 s"):
        run_token(tmp_path / "work", 1, 0)


def test_a_workdir_that_takes_no_token_is_told_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    (tmp_path / "work").touch()
    with pytest.raises(HostError, match=rf"cannot be made \(File exists\); .* {TOKEN_VARIABLE}"):
        run_token(tmp_path / "work", 0, 1)
