"""A dialogue in the terminal."""

import re
import readline  # noqa: F401  (input() edits lines with it, and recalls earlier ones)
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any

from cai_jax.chat.speaker import Reply, Speaker
from cai_jax.prompts.messages import Dialogue, assistant, user

NEW = "/new"
ASK = "you> "
HELP = f"Ctrl-C stops an answer, {NEW} begins a new dialogue, Ctrl-D ends."
# What a terminal obeys instead of showing it, but for tabs and new lines.
_OBEYED = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def talk(speakers: Sequence[Speaker], opening: Dialogue) -> None:
    """Answers every line, until there is no more; each speaker has a dialogue of its own.

    What was said before an answer was stopped stays in the dialogue.

    Args:
      speakers: who answer.
      opening: what dialogues begin with: a system message, or nothing.
    """
    if hasattr(sys.stdin, "reconfigure"):
        sys.stdin.reconfigure(errors="replace")  # a byte that is no UTF-8 ends no dialogue
    print(HELP)
    dialogues = [opening] * len(speakers)
    for turn in count():
        said = _next_line()
        if said is None:
            return
        if said == NEW:
            dialogues = [opening] * len(speakers)
            continue
        for i, speaker in enumerate(speakers):
            dialogue = (*dialogues[i], user(said))
            try:
                reply = speaker.reply(dialogue, turn)
            except ValueError as error:
                print(f"{speaker.name}: {error} ({NEW})")
                continue
            _show(f"{speaker.name}> " if len(speakers) > 1 else "", reply)
            if reply.text:
                dialogues[i] = (*dialogue, assistant(reply.text))


def _next_line() -> str | None:
    """What the user says next; None: nothing more."""
    while True:
        try:
            if said := input(ASK).strip():
                return said
        except EOFError:
            print()
            return None
        except KeyboardInterrupt:
            print(f"\n{HELP}")


def _show(before: str, reply: Reply) -> None:
    """Writes a reply as it is sampled, until it ends or is stopped."""
    print(before, end="", flush=True)
    with _interrupts() as stopped:
        for piece in reply:
            print(_OBEYED.sub("\ufffd", piece), end="", flush=True)
            if stopped.is_set():
                print(" [stopped]", end="")
                break
    print()


@contextmanager
def _interrupts() -> Iterator[threading.Event]:
    """An event that Ctrl-C sets meanwhile. Nothing is raised in the middle of a computation."""
    pressed = threading.Event()
    before: Any = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        yield pressed
    finally:
        signal.signal(signal.SIGINT, before)
