"""The notice that a machine is taken away, from a metadata server that is here."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import ROOT

from cai_jax.parallel import google
from cai_jax.parallel.exit_codes import PREEMPTED

RUN = """
import time
from cai_jax.parallel import preemption

with preemption.leaving_when_told(["go", "on"]):
    for step in range(10**6):
        print("step", step, flush=True)
        if preemption.should_leave():
            preemption.leave()
        time.sleep(0.05)
"""


class MetadataServer(ThreadingHTTPServer):
    """Answers as Google's does: at once where the state is not the one asked about."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.changed, self.value, self.asked = threading.Condition(), "FALSE", 0
        self.failures = 0  # that come first

    def tell(self, value: str) -> None:
        with self.changed:
            self.value = value
            self.changed.notify_all()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server, url = self.server, urlsplit(self.path)
        asked = parse_qs(url.query)
        server.asked += 1
        if server.asked <= server.failures:
            self.send_error(503)
            return
        if url.path != google.NOTICE or self.headers["Metadata-Flavor"] != "Google":
            self.send_error(403)
            return
        if "wait_for_change" in asked:
            with server.changed:
                state = asked["last_etag"][0]
                server.changed.wait_for(lambda: f"e-{server.value}" != state, 60)
        self.send_response(200)
        self.send_header("ETag", f"e-{server.value}")
        self.end_headers()
        self.wfile.write(server.value.encode())

    def log_message(self, *_) -> None: ...


@pytest.fixture
def server(monkeypatch) -> Iterator[MetadataServer]:
    server = MetadataServer()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv(google.SERVER_VARIABLE, f"127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("then", ["nothing", "SIGTERM"])
def test_a_run_leaves_at_the_notice_with_a_code_of_its_own(server, tmp_path, then):
    log = tmp_path / "log.txt"
    with log.open("w") as out:
        run = subprocess.Popen(
            [sys.executable, "-c", RUN], stdout=out, stderr=subprocess.STDOUT, cwd=ROOT
        )
    try:
        while "step 3" not in log.read_text() or not server.asked:
            assert run.poll() is None, log.read_text()
            time.sleep(0.05)
        asked = server.asked
        time.sleep(0.5)
        assert server.asked - asked <= 1  # it waits for the server, and does not ask all the time
        server.tell("TRUE")
        if then == "SIGTERM":  # which follows: it is no second one, and cuts nothing short
            run.send_signal(signal.SIGTERM)
        assert run.wait(10) == PREEMPTED
    finally:
        run.kill()
    said = log.read_text()
    who = "a notice that this machine is taken away"
    assert f"told to end by {who}; what is finished is kept, go on with:\n  go on" in said or (
        then == "SIGTERM" and "told to end by SIGTERM" in said
    )
    assert "Traceback" not in said


def test_a_server_that_fails_at_first_is_asked_again(server, monkeypatch):
    monkeypatch.setattr(google, "RETRY_SECONDS", 0.01)
    server.failures = 3
    server.tell("TRUE")
    assert google.wait_for_notice(threading.Event())
    assert server.asked == 4


def test_a_run_that_is_over_asks_no_more(server):
    over = threading.Event()
    over.set()
    assert not google.wait_for_notice(over)
    assert server.asked == 0


def test_elsewhere_nobody_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv(google.SERVER_VARIABLE, raising=False)
    product = tmp_path / "product_name"
    monkeypatch.setattr(google, "PRODUCT", product)
    assert not google.on_google()
    product.write_text("Standard PC (Q35 + ICH9, 2009)\n")
    assert not google.on_google()
    product.write_text("Google Compute Engine\n")
    assert google.on_google()
    assert os.environ.get(google.SERVER_VARIABLE) is None
