"""The one layer that reads files of users and strangers: text, JSON, lines of JSON and YAML.

Whatever is wrong with a file is one sentence with its name, the line where there is one, and the
remedy. Nothing that a file says makes reading it hang, nor take memory out of proportion: sizes,
depths and what gzip unpacks to are limited, and what is no regular file (a pipe, a device) is
refused, not waited for.
"""

import codecs
import gzip
import json
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import yaml
from pydantic import TypeAdapter, ValidationError
from yaml.reader import ReaderError

from cai_jax.shipped import remedy

MIB = 2**20
TEXT_BYTES = 64 * MIB  # of a file that is read whole; the largest tokenizers have 40 MiB
YAML_BYTES = MIB // 2  # PyYAML reads 200 KB/s; the largest of our constitutions has 85 KB
LINE_BYTES = 16 * MIB
DEPTH = 64  # of lists and objects in each other; tokenizers and configs need 10
# Texts shrink to a third or a tenth by gzip, and a bomb to a thousandth.
UNPACKED = 32  # times the packed size
UNPACKED_BYTES = 2 * MIB  # that any small file may unpack to
BLANK_LINES = 100_000  # of a file; a bomb of nothing else takes long to pass over
PROBLEM_LETTERS = 2000
Valid = TypeVar("Valid")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class FileError(ValueError):
    """A file that cannot be used; the message names it, the line and the remedy."""

    def __init__(self, path: Path, problem: str, line: int | None = None):
        if len(problem) > PROBLEM_LETTERS:  # it quotes what the file says
            half = PROBLEM_LETTERS // 2
            problem = f"{problem[:half]} ... {problem[-half:]}"
        self.problem, self.line = problem, line
        super().__init__(f"{path}, line {line}: {problem}" if line else f"{path}: {problem}")


@contextmanager
def parsing(path: Path, what: str, remedy: str) -> Iterator[None]:
    """Makes one sentence of whatever a library raises at a file that it cannot parse.

    Libraries raise errors of every type at files that are odd enough; those of Rust even panic,
    which is no Exception to Python.

    Raises:
      FileError: in place of all errors but memory's and the keyboard's.
    """
    try:
        yield
    except FileError:
        raise
    except Exception as error:
        raise FileError(path, f"{what} ({_first_line(error)}); {remedy}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise FileError(path, f"{what} ({_first_line(error)}); {remedy}") from error


def _first_line(error: BaseException) -> str:
    """What an error says, on one line of bounded length; its type, where it says little."""
    said = " ".join(str(error).split())[:200]
    return said if " " in said else f"{type(error).__name__} {said}".strip()


def open_regular(path: Path) -> BinaryIO:
    """Opens a file for reading, if it is a regular one; links are followed.

    Raises:
      FileError: there is none, it may not be read, or it is a folder, a pipe or a device.
    """
    try:
        # Without waiting for somebody to write into a pipe.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise FileError(path, f"no such file; {remedy(path)}") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise FileError(path, f"cannot be opened ({reason}); check the path") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise FileError(path, "no regular file; copy what it holds into one")
    return os.fdopen(descriptor, "rb")


def check_regular(path: Path) -> None:
    """Raises a FileError where ``open_regular`` would, for libraries that open files themselves."""
    open_regular(path).close()


def read_text(path: Path, limit: int = TEXT_BYTES) -> str:
    """The text of a file in UTF-8, without a byte-order mark.

    Args:
      path: of the file.
      limit: bytes that it may have.

    Raises:
      FileError: there is no such file, it is too large, or not UTF-8.
    """
    with open_regular(path) as file, parsing(path, "cannot be read", "copy it again"):
        content = file.read(limit + 1)
    if len(content) > limit:
        raise FileError(path, f"more than {limit} bytes; is it the right file?")
    return _decoded(path, content, 1)


def read_json(path: Path, limit: int = TEXT_BYTES, finite: bool = True) -> Any:
    """The value of a .json file.

    Args:
      path: of the file.
      limit: bytes that it may have.
      finite: whether all numbers must be; those that we measured need not.

    Raises:
      FileError: as ``read_text``; or it is not JSON, nested too deep, has a name twice in an
        object, a number that is not finite, or half of a surrogate pair.
    """
    return parse_json(path, read_text(path, limit), "copy or download it again", finite=finite)


def read_object(path: Path, limit: int = TEXT_BYTES, finite: bool = True) -> dict[str, Any]:
    """The object of a .json file; raises as ``read_json`` does, and where it is another value."""
    found = read_json(path, limit, finite)
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise FileError(path, f"holds no JSON object, found {kind}; copy or download it again")
    return found


def parse_json(
    path: Path, text: str, remedy: str, line: int | None = None, finite: bool = True
) -> Any:
    """The value of JSON that stands in a file; raises as ``read_json`` does.

    Args:
      path: of the file.
      text: to parse.
      remedy: for what is not JSON.
      line: of the file that the text is; None: it is the whole file.
      finite: whether all numbers must be.
    """
    try:
        found = json.loads(text, object_pairs_hook=_without_repeats)
    except json.JSONDecodeError as error:
        at = line or error.lineno
        raise FileError(
            path, f"not JSON ({error.msg}, column {error.colno}); {remedy}", at
        ) from None
    except RecursionError:
        raise FileError(path, f"nested more than {DEPTH} deep; write it flatter", line) from None
    except ValueError as error:  # a name twice, or an integer of thousands of digits
        raise FileError(path, f"not JSON ({_first_line(error)}); {remedy}", line) from None
    if problem := _odd_value(found, finite):
        raise FileError(path, problem, line)
    return found


def validated(kind: type[Valid], path: Path) -> Valid:
    """A .json file as a dataclass, every field of it checked.

    Raises:
      FileError: as ``read_json``, or a field is missing, unknown or of another type.
    """
    found = json.dumps(read_json(path))  # as JSON, of which strict types may be made
    try:
        return TypeAdapter(kind).validate_json(found, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        problem = f"field {field}: {first['msg']}; is it of another version? Make it again"
        raise FileError(path, problem) from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a file, or of what a .gz file unpacks to, that are not blank; numbers count from 1.

    Raises:
      FileError: there is no such file, it is truncated, a line is not UTF-8 or too long, or it
        unpacks to far more than texts do.
    """
    with open_regular(path) as file:
        if path.suffix != ".gz":
            yield from _lines(path, file)
            return
        packed = os.fstat(file.fileno()).st_size
        with gzip.open(file) as unpacked:
            yield from _lines(path, unpacked, max(UNPACKED * packed, UNPACKED_BYTES))


def _lines(path: Path, file: Any, limit: float = math.inf) -> Iterator[tuple[int, str]]:
    number = total = blank = 0
    while line := _line(path, file, number + 1):
        number, total = number + 1, total + len(line)
        if total > limit:
            problem = f"unpacks to more than {limit:.0f} bytes, as no text does; unpack it yourself"
            raise FileError(path, problem)
        text = _decoded(path, line, number)
        if text.strip():
            yield number, text
            continue
        blank += 1
        if blank > BLANK_LINES:
            problem = f"more than {BLANK_LINES} blank lines; is it the right file?"
            raise FileError(path, problem, number)


def _line(path: Path, file: Any, number: int) -> bytes:
    try:
        line = bytes(file.readline(LINE_BYTES + 1))
    except (OSError, EOFError, zlib.error) as error:
        problem = f"cannot be read to its end ({error}); it may be truncated, copy it again"
        raise FileError(path, problem) from error
    if len(line) > LINE_BYTES:
        raise FileError(path, f"longer than {LINE_BYTES} bytes; is it one object a line?", number)
    return line


def compose_yaml(path: Path) -> yaml.Node | None:
    """The nodes of a YAML file, which know their lines; None where it holds nothing.

    Raises:
      FileError: as ``read_text``; or it is not YAML, or nested too deep.
    """
    text = read_text(path, YAML_BYTES)
    try:
        loader = _Loader(text)
    except ReaderError as error:
        problem = f"not valid YAML: has the character U+{error.character:04X}; take it out"
        before = f"{text[: error.position]}.".splitlines()
        raise FileError(path, problem, len(before)) from error
    try:
        return loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        said = ", ".join(filter(None, (error.context, error.problem)))
        remedy = next(remedy for words, remedy in _YAML_REMEDIES if words in said)
        mark = error.context_mark if _UNCLOSED in said else error.problem_mark
        problem = f"not valid YAML: {said}; {remedy}"
        raise FileError(path, problem, mark.line + 1 if mark else None) from error
    except (ValueError, ArithmeticError, LookupError, RecursionError) as error:
        problem = f"not valid YAML: {_first_line(error)}; write it anew"
        raise FileError(path, problem, loader.line + 1) from error


_UNCLOSED = "found unexpected end of stream"  # in a quote: its context is where that begins
_YAML_REMEDIES = (  # words of PyYAML, and what to do where it says them
    ("'\\t'", "write spaces in place of the tab"),
    ("cannot start any token", "quote the text that begins with it"),
    ("undefined alias", "quote the text that begins with '*', or put '&' and the name before one"),
    ("duplicate anchor", "quote the text that begins with '&', or give it another name"),
    ("scanning an a", "quote the text that begins with '*' or '&'"),  # alias, anchor
    ("another document", "take out the '---' before it, or make two files of them"),
    ("'<document start>'", "take out the '...' or '%' on a line above it"),
    ("directive", "take out the line that begins with '%'"),
    ("YAML document", "take out the line that begins with '%'"),
    ("nested more than", "write it flatter"),
    ("tag", "quote the text that begins with '!'"),
    (_UNCLOSED, "close the quote"),
    ("document separator", "close the quote before it"),
    ("escape", "write two backslashes for one, or quote the text by single quotes"),
    ("flow", "close the bracket, or quote the text that begins with it"),
    ("block scalar", "begin the text on the next line, or quote it"),
    ("", "quote texts with colons, brackets or quotes in them"),
)


class _Loader(yaml.SafeLoader):
    """Composes nodes up to a depth."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth = getattr(self, "depth", 0) + 1
        if self.depth > DEPTH:
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEPTH} deep", problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _decoded(path: Path, content: bytes, line: int) -> str:
    """Text of bytes that begin on a line of a file."""
    if line == 1:
        if content.startswith(_UTF_16):
            raise FileError(path, "not UTF-8 (it is UTF-16); save the file as UTF-8", 1)
        content = content.removeprefix(codecs.BOM_UTF8)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        at = line + content.count(b"\n", 0, error.start)
        byte = content[error.start]
        problem = f"not UTF-8 (byte 0x{byte:02x}: {error.reason}); save the file as UTF-8"
        raise FileError(path, problem, at) from None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(n for n in names if names.count(n) > 1)!r} appears twice")
    return found


def _odd_value(found: Any, finite: bool) -> str:
    """What makes a JSON value one that nothing may rely on; empty: nothing does."""
    level = [found]
    for _ in range(DEPTH):
        below: list[Any] = []
        for value in level:
            kind = type(value)
            if kind is int:
                if not -(2**63) <= value < 2**64:  # no float and no array holds it
                    return "a whole number of more than 64 bits; write a smaller one"
                continue
            if kind is str and (half := _half_of_a_pair(value)):
                return f"half of a surrogate pair ({half!r}); write the character"
            if finite and kind is float and not math.isfinite(value):
                return f"{value} is no finite number; write one"
            if kind is dict:
                below += [*value, *value.values()]
            elif kind is list:
                below += value
        if not below:
            return ""
        level = below
    return f"nested more than {DEPTH} deep; write it flatter"


def _half_of_a_pair(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        return text[error.start]
    return ""
