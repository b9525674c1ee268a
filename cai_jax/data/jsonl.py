"""Rows of .jsonl and .json files: objects, and where they stand."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_jax.reading import FileError, parse_json, read_lines, read_text


@dataclass(frozen=True)
class JsonRow:
    """An object of a file, and the line that it begins on; lines count from 1."""

    path: Path
    line: int
    fields: dict[str, Any]

    @property
    def id(self) -> str:
        """Its ``id``, or a name made of its line."""
        own = self.fields.get("id")
        return f"line-{self.line}" if own in (None, "") else str(own)

    def text(self, field: str) -> str:
        """A field that must be a text, as it stands.

        Raises:
          FileError: it is none.
        """
        value = self.fields.get(field)
        if not isinstance(value, str):
            raise self.error(f"field {field!r} must be a text, found {value!r}")
        return value

    def error(self, problem: str) -> FileError:
        """What to raise: a problem of this row, with file and line."""
        return FileError(self.path, problem, self.line)


def jsonl_rows(path: Path) -> Iterator[JsonRow]:
    """Rows of a .jsonl or .jsonl.gz file; blank lines and a byte-order mark are skipped.

    Raises:
      FileError: as ``read_lines``, or a line is no JSON object.
    """
    for number, line in read_lines(path):
        found = parse_json(path, line, "write one JSON object a line", number)
        yield JsonRow(path, number, _checked(path, number, found))


def json_rows(path: Path, field: str) -> Iterator[JsonRow]:
    """Objects of a .json file: those of its list, or of the list under ``field`` of its object.

    What else that object says, each of its rows has where it does not say otherwise; one without
    an ``id`` is named by its number, for several may stand on a line.

    Raises:
      FileError: there is no such file, or no such list of objects in it.
    """
    text = read_text(path)
    whole = parse_json(path, text, "write a list of objects")
    shared = {k: v for k, v in whole.items() if k != field} if isinstance(whole, dict) else {}
    items = whole.get(field) if isinstance(whole, dict) else whole
    if not isinstance(items, list):
        raise FileError(path, f"holds no list of objects as its {field!r}; write them there")
    lines = _lines_of(text, field, len(items))
    for number, (line, item) in enumerate(zip(lines, items, strict=True), start=1):
        yield JsonRow(path, line, shared | {"id": f"item-{number}"} | _checked(path, line, item))


def _lines_of(text: str, field: str, count: int) -> list[int]:
    """The lines on which the items of a list begin: of the whole text, or under a field.

    The field's name may also stand in a text or deeper down: the list is the one with so many
    items.
    """
    decoder = json.JSONDecoder()
    for opening in re.finditer(rf'\A\s*\[|"{re.escape(field)}"\s*:\s*\[', text):
        at, lines, line, counted = opening.end(), list[int](), 1, 0
        try:
            while len(lines) < count:
                while text[at] in " \t\r\n,":
                    at += 1
                if text[at] == "]":
                    break
                line, counted = line + text.count("\n", counted, at), at
                lines.append(line)
                at = decoder.raw_decode(text, at)[1]
            else:
                return lines
        except (ValueError, IndexError):  # within a text
            continue
    return [1] * count


def _checked(path: Path, line: int, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise FileError(path, f"found {type(found).__name__}; write a JSON object", line)
    return found
