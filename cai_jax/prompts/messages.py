"""Dialogues: who says what. Everything that handles a prompt handles messages."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue; ``role`` is system, user or assistant."""

    role: str
    text: str


Dialogue = tuple[Message, ...]


def system(text: str) -> Message:
    """What the assistant is told before the dialogue."""
    return Message("system", text)


def user(text: str) -> Message:
    """A user's turn."""
    return Message("user", text)


def assistant(text: str) -> Message:
    """An assistant's turn."""
    return Message("assistant", text)


def first_user_text(dialogue: Sequence[Message]) -> str:
    """What the user says first.

    Raises:
      ValueError: the user says nothing.
    """
    for message in dialogue:
        if message.role == "user":
            return message.text
    raise ValueError("a dialogue has no user's turn; add one")


def split_system(dialogue: Sequence[Message]) -> tuple[Dialogue, Dialogue]:
    """The system message that a dialogue begins with, if it does, and the turns after it."""
    start = 1 if dialogue and dialogue[0].role == "system" else 0
    return tuple(dialogue[:start]), tuple(dialogue[start:])
