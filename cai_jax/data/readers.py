"""Readers of what users bring: prompts, labelled pairs, twins and classed replies.

A format is the fields that its rows have and a function that reads such a row: one function and
one entry of its reader's formats, such as PROMPT_FORMATS, add one. Every reader raises a
ValueError that names file, line, field and remedy.
"""

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cai_jax.data.jsonl import JsonRow, jsonl_rows
from cai_jax.prompts.messages import Dialogue, Message, assistant, first_user_text, user

_ROLES = ("system", "user", "assistant")
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_SPEAKERS = {"Human": user, "Assistant": assistant}
# What a reply does: refuses without a reason, refuses with one, does what is asked.
REPLY_CLASSES = ("unexplained", "explained", "engages")


@dataclass(frozen=True)
class Prompt:
    """A dialogue up to where the assistant is to reply."""

    id: str
    messages: Dialogue


@dataclass(frozen=True)
class LabelledPair:
    """Two responses to one prompt, of which ``chosen`` is the better."""

    id: str
    messages: Dialogue
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Twins:
    """Two prompts of nearly the same words, of which one asks for harm."""

    id: str
    safe: Dialogue
    unsafe: Dialogue


@dataclass(frozen=True)
class ClassedReply:
    """A reply to a prompt, and which of REPLY_CLASSES people find it to be."""

    id: str
    messages: Dialogue
    reply: str
    label: str


def _text_prompt(row: JsonRow) -> Prompt:
    """One user's turn: ``prompt`` is its text, whatever stands in it."""
    return Prompt(row.id, (user(_filled(row, "prompt")),))


def _messages_prompt(row: JsonRow) -> Prompt:
    """Turns as chat templates take them: ``messages`` of ``role`` and ``content``."""
    return Prompt(row.id, _dialogue(row, "messages"))


def _pair(row: JsonRow) -> LabelledPair:
    """A prompt in any format, with ``chosen`` and ``rejected`` as replies."""
    prompt = read_prompt(row)
    chosen, rejected = _filled(row, "chosen"), _filled(row, "rejected")
    return LabelledPair(row.id, prompt.messages, chosen, rejected)


def _hh_rlhf_pair(row: JsonRow) -> LabelledPair:
    """Whole dialogues with ``Human:`` and ``Assistant:`` turns; the last one is the reply."""
    before, chosen = _hh_last_reply(row, "chosen")
    before_rejected, rejected = _hh_last_reply(row, "rejected")
    # hh-rlhf dialogues share their opening, not always every turn; the chosen side's is kept.
    prompt = _hh_turns(before)
    if not any(m.text for m in prompt if m.role == "user") or not before_rejected:
        raise row.error("no 'Human:' turn stands before the last 'Assistant:' turn; add it")
    # A reply may be empty: hh-rlhf has dialogues in which the assistant stays silent.
    return LabelledPair(row.id, prompt, chosen, rejected)


def _twins(row: JsonRow) -> Twins:
    """One user's turn each."""
    return Twins(row.id, (user(_filled(row, "safe")),), (user(_filled(row, "unsafe")),))


def _classed_reply(row: JsonRow) -> ClassedReply:
    """A prompt in any format, a reply and its class."""
    if (label := row.text("label")) not in REPLY_CLASSES:
        raise row.error(f"field 'label' must be one of {', '.join(REPLY_CLASSES)}, found {label!r}")
    return ClassedReply(row.id, read_prompt(row).messages, row.text("reply").strip(), label)


# By the fields that a row of the format has.
PROMPT_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], Prompt]] = {
    ("prompt",): _text_prompt,
    ("messages",): _messages_prompt,
}
PAIR_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], LabelledPair]] = {
    ("prompt", "chosen", "rejected"): _pair,
    ("messages", "chosen", "rejected"): _pair,
    ("chosen", "rejected"): _hh_rlhf_pair,
}
TWIN_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], Twins]] = {("safe", "unsafe"): _twins}
REPLY_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], ClassedReply]] = {
    ("prompt", "reply", "label"): _classed_reply,
    ("messages", "reply", "label"): _classed_reply,
}
Item = TypeVar("Item", Prompt, LabelledPair, Twins, ClassedReply)


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a .jsonl or .jsonl.gz file, in any of PROMPT_FORMATS; ``id`` is optional."""
    return _unique(path, [read_prompt(row) for row in jsonl_rows(path)], "prompts")


def read_prompt(row: JsonRow) -> Prompt:
    """The prompt of a row, in any of PROMPT_FORMATS."""
    return _format(row, PROMPT_FORMATS, "prompt")(row)


def read_pairs(path: Path) -> list[LabelledPair]:
    """Labelled pairs of a .jsonl or .jsonl.gz file, in any of PAIR_FORMATS; ``id`` is optional."""
    pairs = [_format(row, PAIR_FORMATS, "pair")(row) for row in jsonl_rows(path)]
    return _unique(path, pairs, "pairs")


def read_twins(path: Path) -> list[Twins]:
    """Twins of a .jsonl or .jsonl.gz file: fields ``safe`` and ``unsafe``; ``id`` is optional."""
    twins = [_format(row, TWIN_FORMATS, "row of twins")(row) for row in jsonl_rows(path)]
    return _unique(path, twins, "twins")


def read_classed_replies(path: Path) -> list[ClassedReply]:
    """Classed replies of a .jsonl or .jsonl.gz file, in any of REPLY_FORMATS."""
    found = [_format(row, REPLY_FORMATS, "classed reply")(row) for row in jsonl_rows(path)]
    return _unique(path, found, "replies")


def is_held_out(messages: Sequence[Message], percent: int) -> bool:
    """Whether a dialogue falls into the held-out share.

    The hash of what the user says first decides, so that a prompt never changes sides, and
    dialogues that begin alike stay together.
    """
    digest = hashlib.sha256(first_user_text(messages).strip().encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % 100 < percent


def _format(
    row: JsonRow, formats: Mapping[tuple[str, ...], Callable[[JsonRow], Item]], what: str
) -> Callable[[JsonRow], Item]:
    """The format of which the row has most fields."""
    fitting = [names for names in formats if row.fields.keys() >= set(names)]
    best = [names for names in fitting if len(names) == max(map(len, fitting))]
    if len(best) != 1:
        known = "; or ".join(", ".join(map(repr, names)) for names in formats)
        found = ", ".join(map(repr, sorted(row.fields))) or "none"
        raise row.error(f"found the fields {found}; write a {what} as one of: {known}")
    return formats[best[0]]


def _unique(path: Path, items: list[Item], what: str) -> list[Item]:
    if not items:
        raise ValueError(f"{path}: holds no {what}; write one JSON object a line")
    seen = set()
    for item in items:
        if item.id in seen:
            raise ValueError(f"{path}: id {item.id!r} stands twice; make the ids unique")
        seen.add(item.id)
    return items


def _filled(row: JsonRow, field: str) -> str:
    text = row.text(field).strip()
    if not text:
        raise row.error(f"field {field!r} must be a non-empty text, found {row.text(field)!r}")
    return text


def _dialogue(row: JsonRow, field: str) -> Dialogue:
    """A list of messages; only the first may be the system's, and the user has the last word."""
    found = row.fields[field]
    if not isinstance(found, list) or not found:
        raise row.error(f"field {field!r} must be a list of messages, found {found!r}")
    messages = tuple(_message(row, f"{field}[{i}]", item) for i, item in enumerate(found))
    if any(message.role == "system" for message in messages[1:]):
        raise row.error(f"field {field!r} has a system message later on; it must be the first")
    if messages[-1].role != "user":
        raise row.error(
            f"field {field!r} ends with a turn of {messages[-1].role!r}; end it with the user's "
            "turn that is to be answered"
        )
    return messages


def _message(row: JsonRow, where: str, item: Any) -> Message:
    if not isinstance(item, dict) or item.get("role") not in _ROLES:
        raise row.error(f"{where} must have a 'role' of {', '.join(_ROLES)}, found {item!r}")
    content = item.get("content")
    if not isinstance(content, str) or not content.strip():
        raise row.error(f"{where} must have a non-empty text as its 'content', found {content!r}")
    return Message(item["role"], content.strip())


def _hh_last_reply(row: JsonRow, field: str) -> tuple[str, str]:
    """What stands before the last ``Assistant:`` turn of a dialogue, and that turn's text."""
    before, mark, reply = f"\n\n{_filled(row, field)}".rpartition("\n\nAssistant:")
    if not mark:
        raise row.error(
            f"field {field!r} must end in an 'Assistant:' turn where neither 'prompt' nor "
            "'messages' stands beside it"
        )
    return before.rstrip(), reply.strip()


def _hh_turns(text: str) -> Dialogue:
    """Turns of an hh-rlhf dialogue, each opened by its mark; the user's may lack the first mark."""
    opening, *parts = _HH_TURN.split(text)
    turns = [user(opening.strip())] if opening.strip() else []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        turns.append(_HH_SPEAKERS[speaker](said.strip()))
    if turns and turns[-1] == assistant(""):  # silent before it replies
        turns.pop()
    return tuple(turns)
