"""The page, served to this machine alone.

Requests must name this server as their host and come from its own page, so that no site that a
browser has open can talk to it (DNS rebinding, cross-site requests). The page loads nothing else.
"""

import json
from collections.abc import Iterator
from contextlib import closing
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import chain
from pathlib import Path
from typing import Any

from cai_jax.chat.arena import Arena, Event, Events
from cai_jax.data.jsonl import JsonRow
from cai_jax.reading import FileError, parse_json

ADDRESS = "127.0.0.1"
BODY_BYTES = 2**18  # of a request, at most
PAGE = {
    "/": ("page.html", "text/html"),
    "/page.js": ("page.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"),
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class RefusedError(ValueError):
    """A request that is not answered; the message is one sentence."""

    def __init__(self, status: HTTPStatus, problem: str):
        super().__init__(problem)
        self.status = status


class PageServer(ThreadingHTTPServer):
    """Serves one arena.

    Args:
      arena: whose actions the page asks for.
      port: 0: any that is free.

    Raises:
      ValueError: the port is taken.
    """

    daemon_threads = True

    def __init__(self, arena: Arena, port: int):
        self.arena = arena
        try:
            super().__init__((ADDRESS, port), _Handler)
        except OSError as error:
            raise ValueError(
                f"--port: {port} cannot be listened on ({error}); give another, or 0 for any"
            ) from error

    @property
    def hosts(self) -> list[str]:
        """Names of this server."""
        return [f"{name}:{self.server_port}" for name in (ADDRESS, "localhost")]


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = 30  # seconds that a request may take to arrive
    server_version, sys_version = "cai_jax", ""

    def do_GET(self) -> None:
        """A file of the page."""
        try:
            self._check_host()
            if self.path not in PAGE:
                raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such page; open /")
        except RefusedError as error:
            self._answer(error.status, "text/plain", str(error).encode())
            return
        name, kind = PAGE[self.path]
        content = files("cai_jax.chat").joinpath(name).read_bytes()
        self._answer(HTTPStatus.OK, f"{kind}; charset=utf-8", content)

    def do_POST(self) -> None:
        """An action: its events, each a line of JSON, as they come."""
        try:
            events = self._action()
            first = next(events)
        except (ValueError, FloatingPointError, OSError) as error:
            status = error.status if isinstance(error, RefusedError) else HTTPStatus.BAD_REQUEST
            self._answer(status, "application/json", _line({"error": _sentence(error)}))
            return
        self._start(HTTPStatus.OK, "application/x-ndjson")
        with closing(events):
            for event in chain([first], _until_error(events)):
                try:
                    self.wfile.write(_line(event))
                except OSError:  # nobody listens any more
                    return

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal is no access log."""

    def _check_host(self) -> None:
        if self.headers.get("Host") not in self.server.hosts:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, f"another host is meant; open http://{self.server.hosts[0]}/"
            )

    def _action(self) -> Events:
        """The events of what is asked for.

        Raises:
          ValueError: it cannot be done.
        """
        self._check_host()
        if self.headers.get("Origin", self._origins[0]) not in self._origins:
            raise RefusedError(HTTPStatus.FORBIDDEN, "another site asks; open the page itself")
        if self.headers.get_content_type() != "application/json":
            raise RefusedError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the request is no application/json; send JSON"
            )
        action = self.server.arena.actions.get(self.path)
        if action is None:
            raise RefusedError(HTTPStatus.NOT_FOUND, "there is no such action; open /")
        found = parse_json(Path("request"), self._body(), "send a JSON object")
        if not isinstance(found, dict):
            raise ValueError(f"the request is a {type(found).__name__}; send a JSON object")
        return action(JsonRow(Path("request"), 1, found))

    @property
    def _origins(self) -> list[str]:
        return [f"http://{host}" for host in self.server.hosts]

    def _body(self) -> str:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            raise RefusedError(HTTPStatus.LENGTH_REQUIRED, "the request has no length; send one")
        if len(length) > 9 or int(length) > BODY_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request has more than {BODY_BYTES} bytes; begin a new dialogue",
            )
        return self.rfile.read(int(length)).decode("utf-8")

    def _answer(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self._start(status, kind, len(content))
        self.wfile.write(content)

    def _start(self, status: HTTPStatus, kind: str, length: int | None = None) -> None:
        """Status and headers; the end of the connection is the end of what has no length."""
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


def serve(arena: Arena, port: int) -> None:
    """Serves the page until Ctrl-C."""
    with PageServer(arena, port) as server:
        try:
            print(f"http://{server.hosts[0]}/ (Ctrl-C ends)", flush=True)
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def _until_error(events: Events) -> Iterator[Event]:
    """Events, the last of which may tell why there are no more."""
    try:
        yield from events
    except (ValueError, FloatingPointError, OSError) as error:
        yield {"error": _sentence(error)}


def _sentence(error: Exception) -> str:
    return error.problem if isinstance(error, FileError) else str(error)


def _line(event: Event) -> bytes:
    return json.dumps(event).encode() + b"\n"
