"""The one reader of .jsonl and .json files: objects, and where they stand."""

import codecs
import gzip
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


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
          ValueError: it is none.
        """
        value = self.fields.get(field)
        if not isinstance(value, str):
            raise self.error(f"field {field!r} must be a text, found {value!r}")
        return value

    def error(self, problem: str) -> ValueError:
        """What to raise: a problem of this row, with file and line."""
        return _error(self.path, self.line, problem)


def jsonl_rows(path: Path) -> Iterator[JsonRow]:
    """Rows of a .jsonl or .jsonl.gz file; blank lines and a byte-order mark are skipped.

    Raises:
      ValueError: there is no such file, it is truncated, or a line is no JSON object in UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                content = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
                if content.strip():
                    yield JsonRow(path, number, _object(path, number, content))
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(
            f"{path}: cannot be read to its end ({error}); it may be truncated, copy it again"
        ) from error


def read_utf8(path: Path) -> str:
    """The text of a file, without a byte-order mark.

    Raises:
      ValueError: there is no such file, or it is not UTF-8.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; check the path")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 ({error}); save the file as UTF-8") from error


def json_rows(path: Path, field: str) -> Iterator[JsonRow]:
    """Objects of a .json file: those of its list, or of the list under ``field`` of its object.

    What else that object says, each of its rows has where it does not say otherwise; one without
    an ``id`` is named by its number, for several may stand on a line.

    Raises:
      ValueError: there is no such file, or no such list of objects in it.
    """
    text = read_utf8(path)
    whole = _parsed(path, 1, text.encode("utf-8"), "write a list of objects")
    shared = {k: v for k, v in whole.items() if k != field} if isinstance(whole, dict) else {}
    items = whole.get(field) if isinstance(whole, dict) else whole
    if not isinstance(items, list):
        raise ValueError(f"{path}: holds no list of objects as its {field!r}; write them there")
    lines = _lines_of(text, field, len(items))
    for number, (line, item) in enumerate(zip(lines, items, strict=True), start=1):
        yield JsonRow(path, line, shared | {"id": f"item-{number}"} | _checked(path, line, item))


def _lines_of(text: str, field: str, count: int) -> list[int]:
    """The lines on which the items of a list begin: of the whole text, or under a field."""
    decoder, lines = json.JSONDecoder(), list[int]()
    for opening in re.finditer(rf'\A\s*\[|"{re.escape(field)}"\s*:\s*\[', text):
        at, lines = opening.end(), []
        while len(lines) < count:
            while text[at] in " \t\r\n,":
                at += 1
            if text[at] == "]":
                break
            lines.append(text.count("\n", 0, at) + 1)
            at = decoder.raw_decode(text, at)[1]
        else:
            break
    return lines


def _object(path: Path, line: int, content: bytes) -> dict[str, Any]:
    return _checked(path, line, _parsed(path, line, content, "write one JSON object a line"))


def _checked(path: Path, line: int, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise _error(path, line, f"found {type(found).__name__}; write a JSON object")
    return found


def _parsed(path: Path, line: int, content: bytes, remedy: str) -> Any:
    try:
        found = json.loads(content.decode("utf-8"))
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise _error(path, line, f"not UTF-8 ({error}); save the file as UTF-8") from error
    except UnicodeEncodeError as error:
        problem = f"half of a surrogate pair ({error.object[error.start]!r}); write the character"
        raise _error(path, line, problem) from error
    except ValueError as error:
        raise _error(path, line, f"not JSON ({error}); {remedy}") from error
    return found


def _error(path: Path, line: int, problem: str) -> ValueError:
    return ValueError(f"{path}, line {line}: {problem}")
