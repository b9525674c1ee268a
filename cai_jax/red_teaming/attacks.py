"""Files of attacks: rows of prompts as training reads them, each with where it comes from."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cai_jax.data.readers import Attack, Prompt
from cai_jax.prompts.messages import Message

FILE = "attacks.jsonl"


def row_of(attack: Attack) -> dict[str, Any]:
    """An attack as ``read_prompts`` and ``read_attacks`` read it."""
    said = (
        {"prompt": attack.messages[0].text}
        if len(attack.messages) == 1
        else {"messages": [_turn(message) for message in attack.messages]}
    )
    names = ("tags", "strategy", "round", "seed", "model", "parents")
    return {"id": attack.id, **said, **{name: getattr(attack, name) for name in names}}


def text_of(attacks: Sequence[Attack], more: Sequence[dict[str, Any]] = ()) -> str:
    """Attacks as JSONL; ``more`` are further fields of each."""
    rows = map(row_of, attacks)
    whole = [row | m for row, m in zip(rows, more, strict=True)] if more else list(rows)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in whole)


def direct_seeds(prompts: Sequence[Prompt]) -> list[Attack]:
    """Prompts of one user's turn, as seeds of direct attacks."""
    return [Attack(**vars(prompt)) for prompt in prompts if len(prompt.messages) == 1]


def write_attacks(path: Path, attacks: Sequence[Attack]) -> None:
    """Writes a file of attacks."""
    path.write_text(text_of(attacks), encoding="utf-8")


def _turn(message: Message) -> dict[str, str]:
    return {"role": message.role, "content": message.text}
