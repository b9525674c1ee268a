"""Rows of a JSONL file, as score and generate read and write them."""

import json
from collections.abc import Iterable
from typing import Any

from absl import flags

from cai_jax.commands.files import check_out, write_whole
from cai_jax.commands.model_flag import MODEL
from cai_jax.data.jsonl import JsonRow, jsonl_rows
from cai_jax.data.readers import read_prompt
from cai_jax.storage.files import resolved

# Fields of which each alone gives a prompt or a completion as text.
_TEXT_FIELDS = {"prompt": ("prompt", "messages"), "completion": ("completion",)}

_DATA = flags.DEFINE_string("data", None, "JSONL file to read", required=True)
_OUT = flags.DEFINE_string("out", None, "JSONL file to write", required=True)


def read_rows(fields: tuple[str, ...]) -> list[JsonRow]:
    """Rows of --data; each has all of ``fields``, as text or as ``FIELD_ids``.

    A prompt may also be ``messages``: whatever data/readers.py reads as one.

    Raises:
      ValueError: a row lacks a field; the message names file and line.
    """
    check_out(_OUT.value, inputs=[_DATA.value, MODEL.value])
    path = resolved(_DATA.value)
    rows = list(jsonl_rows(path))
    if not rows:
        raise ValueError(f"{path}: holds no rows; write one JSON object a line")
    for row in rows:
        for field in fields:
            _check(row, field)
    return rows


def _check(row: JsonRow, field: str) -> None:
    ids = row.fields.get(f"{field}_ids")
    given = [name for name in _TEXT_FIELDS[field] if name in row.fields]
    if ids is not None:
        if not (isinstance(ids, list) and ids and all(type(i) is int and i >= 0 for i in ids)):
            raise row.error(f"'{field}_ids' must be a list of whole numbers, not empty")
    elif not given:
        known = ", ".join(map(repr, [*_TEXT_FIELDS[field], f"{field}_ids"]))
        raise row.error(f"has no {field}; give one of {known}")
    elif field == "prompt" and not isinstance(row.fields.get(field), str):
        read_prompt(row)
    else:
        row.text(field)


def write_rows(rows: Iterable[dict[str, Any]]) -> None:
    """Writes --out, whole or not at all."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_whole(_OUT.value, text)
