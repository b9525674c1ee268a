"""Chat templates: programs of strangers, rendered in a child process that may be killed.

A template is code, and code that ends in a trial may still hang at another dialogue. So none runs
in the process of a run, ever: one child renders them all, and dies at a template that takes more
time or memory than dialogues need. It counts processor time, so a busy machine refuses nothing.
A request costs 0.1 ms beside the rendering, and the child starts once a process, in 0.2 s.

The same child tries the patterns of a tokenizer (patterns.py), which may take for ever likewise.
"""

import json
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, cast

import jinja2
import jinja2.ext
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

# What Llama 3's own template writes where it is told no date; a run has one date, not today's.
DATE = "2024-07-26"
SECONDS = 2.0  # of processor time a dialogue; templates take milliseconds
MEMORY = 768 * 2**20  # bytes of addresses; an idle child has 100 MiB
LETTERS = 2**24  # of what a template writes
TEMPLATE_LETTERS = 2**20  # of a template; the longest have 20,000


class TemplateRefusedError(ValueError):
    """A template refuses a dialogue, or it cannot be rendered within the limits."""


def render(template: str, date: str, variables: Mapping[str, Any]) -> str:
    """What a template writes.

    Args:
      template: in Jinja, as transformers takes it.
      date: that ``strftime_now`` of the template tells, as YYYY-MM-DD.
      variables: of the template, as JSON.

    Raises:
      TemplateRefusedError: it raises an error, takes too much time or memory, or writes too much.
    """
    if len(template) > TEMPLATE_LETTERS:
        raise TemplateRefusedError(f"it is longer than {TEMPLATE_LETTERS} letters")
    reply = CHILD.ask({"template": template, "date": date, "variables": variables})
    if "text" not in reply:
        raise TemplateRefusedError(reply["error"])
    return cast(str, reply["text"])


class _Child:
    """The process of strangers' code; it is started when it is needed, and again after it died."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._asking = threading.Lock()

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The reply to a request: ``text``, or ``error``."""
        with self._asking:
            if self._process is None:
                command = [sys.executable, "-P", __file__]
                pipe = subprocess.PIPE
                self._process = subprocess.Popen(
                    command,
                    stdin=pipe,
                    stdout=pipe,
                    stderr=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is for the run, which may render its last
                )
            question, answer = self._process.stdin, self._process.stdout
            assert question
            assert answer
            try:
                question.write(json.dumps(request).encode() + b"\n")
                question.flush()
                line = answer.readline()
            except BrokenPipeError:
                line = b""
            if line:
                return cast(dict[str, Any], json.loads(line))
            self._process.communicate()
            code, self._process = self._process.returncode, None
        if code == -signal.SIGPROF:
            return {"error": f"it takes more than {SECONDS:g} s of processor time"}
        return {"error": f"the process that tries it ended with code {code}"}


CHILD = _Child()


class _Generation(jinja2.ext.Extension):
    """``generation`` marks what the assistant says, for masks that we make otherwise."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> list[Node]:
        next(parser.stream)
        return list(parser.parse_statements(("name:endgeneration",), drop_needle=True))


@lru_cache(maxsize=8)
def _compiled(source: str, date: str) -> jinja2.Template:
    """A template with what transformers gives templates to call."""

    def refuse(message: str) -> None:
        raise jinja2.TemplateError(message)

    def to_json(value: Any, **options: Any) -> str:  # jinja2's own escapes HTML
        return json.dumps(value, **({"ensure_ascii": False} | options))

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = refuse
    environment.globals["strftime_now"] = datetime.fromisoformat(date).strftime
    return environment.from_string(source)


def _serve(questions: Sequence[bytes] | Any, answers: Any) -> None:
    """Does what is asked, a line of JSON each, until nobody asks."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for line in questions:
        asked = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # ends this process
        reply = json.dumps(_tried(**asked) if "tokenizer" in asked else _rendered(**asked))
        signal.setitimer(signal.ITIMER_PROF, 0)
        answers.write(reply.encode() + b"\n")
        answers.flush()


def _rendered(template: str, date: str, variables: Mapping[str, Any]) -> dict[str, str]:
    try:
        parts, letters = [], 0
        for part in _compiled(template, date).generate(**variables):
            parts.append(part)
            letters += len(part)
            if letters > LETTERS:
                return {"error": f"it writes more than {LETTERS} letters"}
        return {"text": "".join(parts)}
    except MemoryError:
        return {"error": f"it takes more than {MEMORY // 2**20} MiB of memory"}
    except Exception as error:  # of any type, for a template is a program
        said = " ".join(str(error).split())[:300]
        plain = isinstance(error, jinja2.TemplateError) and said
        return {"error": said if plain else f"{type(error).__name__}: {said}"}


def _tried(tokenizer: str, texts: Sequence[str]) -> dict[str, str]:
    """What becomes of texts that a tokenizer encodes and decodes."""
    from tokenizers import Tokenizer

    try:
        made = Tokenizer.from_str(tokenizer)
    except BaseException:  # a panic of Rust is no Exception; whoever loads it tells what is wrong
        return {"text": ""}
    try:
        for text in texts:
            made.encode(text)
            if made.decoder:
                made.decoder.decode([text])
    except BaseException as error:
        return {"error": f"it ends in an error: {' '.join(str(error).split())[:200]}"}
    return {"text": ""}


if __name__ == "__main__":
    _serve(sys.stdin.buffer, sys.stdout.buffer)
