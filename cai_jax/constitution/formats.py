"""What files of other formats hold: published JSON, a sentence a line, a Markdown list.

Nothing of a file is dropped in silence: what cannot be read is refused with its line.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex
from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from cai_jax.letters import is_unspaced, odd_letter, seen, word_count
from cai_jax.reading import YAML_BYTES, parse_json, read_text


@dataclass(frozen=True)
class Rule:
    """A sentence that says what the assistant should do."""

    id: str
    tags: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Requests:
    """A request for a critique, and one for a revision."""

    id: str
    tags: tuple[str, ...]
    critique: str
    revision: str


@dataclass(frozen=True)
class Question:
    """A question which of two responses is better."""

    id: str
    tags: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Remark:
    """What a document says beside its principles."""

    text: str


Item = Rule | Requests | Question | Remark


def items_of(path: Path) -> Iterator[Item]:
    """What a file holds, in its order, read as the end of its name says.

    Raises:
      ValueError: something in it cannot be read; the message names its line.
    """
    reader = READERS.get(path.suffix.lower())
    if not reader:
        raise ValueError(f"{path}: import reads files that end with {', '.join(READERS)}")
    return reader(path, read_text(path, YAML_BYTES))


_TASK = r"(?:\[[ xX]\]\s+)?"  # a box to tick
_MARK = re.compile(rf"\s*(?:(?:[-*•]|\d+[.)])\s+)?{_TASK}")
_CODE = re.compile(r"`[^`]*`")
_FOOTNOTE = re.compile(r"\[\^[^\]\s]*\]|\^\[")


def _checked(path: Path, text: str) -> Iterator[tuple[str, str]]:
    """The lines of a text, each with the place where it stands."""
    for number, line in enumerate(re.split(r"\r\n?|\n", text), 1):
        where = f"{path}, line {number}"
        if problem := odd_letter(line):
            raise ValueError(f"{where}: {problem}")
        if footnote := _FOOTNOTE.search(_CODE.sub("", line)):
            raise ValueError(f"{where}: a footnote, {footnote[0]}; say it in the text, or cut it")
        yield where, line


def _lines(path: Path, text: str) -> Iterator[Item]:
    """One principle a line; blank lines, and marks of a list before it, say nothing."""
    for where, line in _checked(path, text):
        if line.lstrip().startswith("#"):
            raise ValueError(f"{where}: a heading; give the file a name that ends with .md")
        if line.lstrip().startswith("|"):
            raise ValueError(f"{where}: a row of a table; write a principle on a line of its own")
        if line.strip():
            said = _sentence(_MARK.sub("", line, 1), where)
            yield Rule(_short(said, where), (), said)


def _markdown(path: Path, text: str) -> Iterator[Item]:
    """Items of lists, tagged with the headings above them; titles and paragraphs are remarks."""
    lines = [line for _, line in _checked(path, text)]
    if end := _front_matter(lines):
        raise ValueError(
            f"{path}, line 1: front matter, which is no principle; take out lines 1 to {end}, and"
            " say what it says by --name and --author"
        )
    headings: dict[int, str] = {}
    for node in SyntaxTreeNode(_MARKDOWN.parse(text)).children:
        where = f"{path}, line {node.map[0] + 1 if node.map else 1}"
        if node.type == "heading":
            level, words = int(node.tag[1]), _inline(node.children[0], where)
            headings = {at: said for at, said in headings.items() if at < level}
            if level == 1:
                yield Remark(f"{words.rstrip('.')}.")
            else:
                headings[level] = _slug(words, where)
        elif node.type == "paragraph":
            yield Remark(_inline(node.children[0], where))
        elif node.type in ("bullet_list", "ordered_list"):
            for item in node.children:
                yield _list_item(path, item, tuple(dict.fromkeys(headings.values())))
        elif node.type != "hr":
            raise ValueError(
                f"{where}: {_named(node)} is neither heading, paragraph nor list; write it as one"
                " of these"
            )


# What GitHub adds to Markdown is parsed so that it can be refused.
_MARKDOWN = MarkdownIt().enable(["table", "strikethrough"])
_NAMES = {
    **{"ordered_list": "an ordered list", "html_block": "an HTML block", "html_inline": "HTML"},
    **{"hr": "a line across", "image": "an image", "s": "struck-out text"},
}


def _named(node: SyntaxTreeNode) -> str:
    return _NAMES.get(node.type, f"a {node.type.replace('_', ' ')}")


def _front_matter(lines: Sequence[str]) -> int:
    """How many lines of YAML or TOML a document begins with."""
    fence = lines[0].rstrip()
    if fence not in ("---", "+++") or not "".join(lines[1:2]).strip():
        return 0
    ends = (n for n, line in enumerate(lines[1:], 2) if line.rstrip() in (fence, "..."))
    return next(ends, 0)


def _list_item(path: Path, item: SyntaxTreeNode, tags: tuple[str, ...]) -> Item:
    where = f"{path}, line {item.map[0] + 1 if item.map else 1}"
    inner = next((node for node in item.children if node.type != "paragraph"), None)
    if inner:
        line = inner.map[0] + 1 if inner.map else 1
        raise ValueError(
            f"{path}, line {line}: {_named(inner)} inside of an item; make it items of their own"
        )
    text = " ".join(_inline(node.children[0], where) for node in item.children)
    text = re.sub(f"^{_TASK}", "", text)
    # "**Honesty**: The assistant ..." names its principle.
    source = "".join(node.children[0].content for node in item.children[:1])
    named = re.match(rf"{_TASK}(\*\*|__)(.+?)(?::\1|\1:)\s+\S", source)
    if named:
        text = text.removeprefix(named[2]).lstrip(": ")
    said = _sentence(text, where)
    return Rule(_slug(named[2], where) if named else _short(said, where), tags, said)


def _inline(node: SyntaxTreeNode, where: str) -> str:
    """The words of a paragraph without marks for bold and the like; a link keeps its address."""
    if node.type in ("text", "code_inline"):
        return node.content
    if node.type in ("softbreak", "hardbreak"):
        return " "
    if node.type in ("inline", "strong", "em", "link"):
        words = "".join(_inline(child, where) for child in node.children)
        return f"{words} ({node.attrs['href']})" if node.type == "link" else words
    raise ValueError(f"{where}: {_named(node)} cannot be read; write it in words")


_MARKS = re.compile(
    r"^\s*(?:critique ?request:|revision ?request:)|(?:critique:|revision:|options:)\s*$",
    re.IGNORECASE,
)
_COMPARES = re.compile(
    r"(?:please )?(?:which|choose|compare|consider|pick|select|of)\b", re.IGNORECASE
)


def _json(path: Path, text: str) -> Iterator[Item]:
    """The published forms: names with requests, and lists of questions; or of sentences."""
    found = parse_json(path, text, "write a list, or a mapping from names to principles")
    named = found.items() if isinstance(found, dict) else None
    if named is None and not isinstance(found, list):
        raise ValueError(f"{path}, line 1: must be a list, or a mapping from names to principles")
    entries = named or (("", value) for value in found)
    for (name, value), line in zip(entries, _entry_lines(text), strict=True):
        yield from _json_item(f"{path}, line {line}", name, value)


def _entry_lines(text: str) -> Iterator[int]:
    """The lines on which the entries of an object or a list begin, of JSON that was parsed."""
    value_end = lambda at: json.JSONDecoder().raw_decode(text, at)[1]
    line, last, at = 1, 0, _begin(text, 0)
    is_object, at = text[at] == "{", _begin(text, at + 1)
    while text[at] not in "]}":
        line, last = line + text.count("\n", last, at), at
        yield line
        if is_object:
            at = _begin(text, value_end(at))  # past its name
        at = _begin(text, value_end(at))


_VALUE = re.compile(r"[^\s,:]")


def _begin(text: str, at: int) -> int:
    """Where the next value, or end, of JSON begins."""
    found = _VALUE.search(text, at)
    return found.start() if found else len(text)


def _json_item(where: str, name: str, value: Any) -> Iterator[Item]:
    id_ = _slug(name, where) if name else ""
    if (isinstance(value, str) and re.match(r"\s*Human:", value)) or (
        isinstance(value, dict) and "prompt" in value and "edit_request" not in value
    ):
        raise ValueError(
            f"{where}: few-shots, which import does not read; write them under few_shots by hand"
        )
    if isinstance(value, str):
        said = _clean(_MARKS.sub("", value), where)
        kind = Question if _COMPARES.match(said) else Rule
        yield kind(id_ or _short(said, where), (), _sentence(said, where))
    elif isinstance(value, dict) and set(value) == {"prompt", "edit_request"}:
        critiques, revisions = (
            [each] if isinstance(each, str) else each
            for each in (value["prompt"], value["edit_request"])
        )
        texts = (critiques, revisions)
        if not all(isinstance(t, list) and t and all(isinstance(e, str) for e in t) for t in texts):
            raise ValueError(f"{where}: prompt and edit_request must be texts, or lists of texts")
        for critique in critiques:
            for revision in revisions:
                asked = (_clean(_MARKS.sub("", each), where) for each in (critique, revision))
                yield Requests(id_, (), *asked)
    else:
        entry = repr(name) if name else "an entry"
        problem = "is neither a sentence nor a mapping of 'prompt' and 'edit_request'"
        remedy = "write it as one of these"
        if isinstance(value, dict):
            problem = f"has {' and '.join(map(repr, value)) or 'no fields'}"
            remedy = (
                "call what asks for a critique 'prompt' and what asks for a revision"
                " 'edit_request', and take out the rest"
            )
        raise ValueError(f"{where}: {entry} {problem}; {remedy}")


_ENDED = regex.compile(r"[\p{Sentence_Terminal}…]$")


def _sentence(text: str, where: str) -> str:
    said = _clean(text, where)
    if word_count(said) < 2:
        raise ValueError(f"{where}: {said!r} is no sentence; say what the assistant should do")
    return said if _ENDED.search(said) or is_unspaced(said[-1]) else f"{said}."


def _clean(text: str, where: str) -> str:
    """The text on one line."""
    if problem := odd_letter(text):
        raise ValueError(f"{where}: the text {problem}")
    if not seen(text).strip():
        raise ValueError(f"{where}: an empty text; write one, or take it out")
    # Templates set it in the curly marks.
    return " ".join(text.split()).replace("“", "'").replace("”", "'")


def _slug(text: str, where: str) -> str:
    """A name out of a text: words, joined by hyphens."""
    words = re.findall(r"\w+", text.lower().replace("'", "").replace("’", ""))
    if not words:
        raise ValueError(f"{where}: {text!r} has no word to be named by; write one")
    return "-".join(words)


_SAYS_LITTLE = """
a ai all always an and any are as assistant be by chatbot choose do does for from has in is it its
model must never not of on or please possible replies reply response responses should than that the
their to user users which who with you your
"""


def _short(text: str, where: str) -> str:
    """A name out of the first words of a text that say what it is about."""
    words = _slug(text, where).split("-")
    return "-".join([w for w in words if w not in _SAYS_LITTLE.split()][:4] or words[:4])


READERS: dict[str, Callable[[Path, str], Iterator[Item]]] = {
    ".json": _json,
    ".txt": _lines,
    ".md": _markdown,
}
