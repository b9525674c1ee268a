"""Readers of what users bring: prompts, labelled pairs, hh-rlhf files.

Every reader raises a ValueError that names file, line, field and mend.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Prompt:
    """What a user says first."""

    id: str
    text: str


@dataclass(frozen=True)
class LabelledPair:
    """Two responses to one prompt, of which ``chosen`` is the better."""

    id: str
    prompt: str
    chosen: str
    rejected: str


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts from .jsonl lines with ``prompt`` and, if wanted, ``id``."""
    prompts = []
    for line, row in _rows(path):
        text = _text(path, line, row, "prompt")
        prompts.append(Prompt(str(row.get("id") or f"line-{line}"), text))
    _check(path, [p.id for p in prompts], "prompts")
    return prompts


def read_pairs(path: Path) -> list[LabelledPair]:
    """Labelled pairs from .jsonl or .jsonl.gz.

    Lines hold ``prompt``, ``chosen``, ``rejected``; or, as in hh-rlhf, ``chosen`` and ``rejected``
    as whole dialogues with ``Human:`` and ``Assistant:`` turns, of which the turns before the last
    reply become the prompt; ``prompts.chat.conversation`` takes it apart again.
    """
    pairs = []
    for line, row in _rows(path):
        chosen = _text(path, line, row, "chosen")
        rejected = _text(path, line, row, "rejected")
        if "prompt" in row:
            prompt = _text(path, line, row, "prompt")
        else:
            prompt, chosen, rejected = _split_dialogues(path, line, chosen, rejected)
        pairs.append(LabelledPair(str(row.get("id") or f"line-{line}"), prompt, chosen, rejected))
    _check(path, [p.id for p in pairs], "pairs")
    return pairs


def is_held_out(text: str, percent: int) -> bool:
    """Whether a text falls into the held-out share: by its hash, so it never changes sides."""
    digest = hashlib.sha256(text.strip().encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "big") % 100 < percent


def file_sha256(path: Path) -> str:
    """Hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path in the config's data section")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for number, line in enumerate(file, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise ValueError(f"{path}, line {number}: not JSON ({error})") from error
                if not isinstance(row, dict):
                    raise ValueError(f"{path}, line {number}: a JSON object is wanted")
                yield number, row
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: cannot be read to its end ({error}); a .gz file may be truncated, text must "
            "be UTF-8"
        ) from error


def _text(path: Path, line: int, row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(
            f"{path}, line {line}: field {field!r} must be a non-empty text, found {value!r}"
        )
    return value.strip()


def _check(path: Path, ids: list[str], what: str) -> None:
    if not ids:
        raise ValueError(f"{path}: holds no {what}; write one JSON object a line")
    seen = set()
    for name in ids:
        if name in seen:
            raise ValueError(f"{path}: id {name!r} stands twice; ids must be unique")
        seen.add(name)


def _split_dialogues(path: Path, line: int, chosen: str, rejected: str) -> tuple[str, str, str]:
    mark = "\n\nAssistant:"
    before_chosen, found, reply_chosen = ("\n\n" + chosen).rpartition(mark)
    before_rejected, found_too, reply_rejected = ("\n\n" + rejected).rpartition(mark)
    # A reply may be empty: hh-rlhf has dialogues in which the assistant stays silent.
    if not (found and found_too):
        raise ValueError(
            f"{path}, line {line}: no 'prompt' field, so chosen and rejected must be dialogues "
            "that end in an 'Assistant:' turn"
        )
    # hh-rlhf dialogues share their opening, not always every turn; the chosen side's is kept.
    prompt = before_chosen.strip().removeprefix("Human:").strip()
    if not prompt or not before_rejected.strip():
        raise ValueError(f"{path}, line {line}: nothing stands before the last 'Assistant:' turn")
    return prompt, reply_chosen.strip(), reply_rejected.strip()
