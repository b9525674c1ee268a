"""The one reader of .jsonl files: objects, and where they stand."""

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class JsonRow:
    """An object of a .jsonl file; ``line`` counts from 1."""

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


def _object(path: Path, line: int, content: bytes) -> dict[str, Any]:
    try:
        found = json.loads(content.decode("utf-8"))
        json.dumps(found, ensure_ascii=False).encode("utf-8")
    except UnicodeDecodeError as error:
        raise _error(path, line, f"not UTF-8 ({error}); save the file as UTF-8") from error
    except UnicodeEncodeError as error:
        problem = f"half of a surrogate pair ({error.object[error.start]!r}); write the character"
        raise _error(path, line, problem) from error
    except ValueError as error:
        problem = f"not JSON ({error}); write one JSON object a line"
        raise _error(path, line, problem) from error
    if not isinstance(found, dict):
        raise _error(path, line, f"found {type(found).__name__}; write one JSON object a line")
    return found


def _error(path: Path, line: int, problem: str) -> ValueError:
    return ValueError(f"{path}, line {line}: {problem}")
