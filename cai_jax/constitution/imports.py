"""Makes a constitution out of other formats: published JSON, a sentence a line, a Markdown list.

What a format lacks is written by wording templates, which are all in this file. They are plain on
purpose: a person goes over the result, above all over each ``opposite``. Nothing of a file is
dropped in silence: what cannot be read is refused with its line.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, TypeVar

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from cai_jax.constitution.schema import Constitution, CritiquePrinciple, FeedbackPrinciple
from cai_jax.reading import parse_json, read_text

UNTAGGED = "imported"


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


def import_constitution(paths: Sequence[Path], name: str, author: str) -> Constitution:
    """A constitution with all that the files hold, in their order.

    Args:
      paths: files whose names end with .json, .txt or .md.
      name: of the constitution.
      author: of every principle.

    Raises:
      ValueError: something in a file cannot be read; the message names its line.
    """
    items = [item for path in paths for item in _items(path)]
    rules = [item for item in items if isinstance(item, Rule)]
    requests = [item for item in items if isinstance(item, Requests)]
    questions = [item for item in items if isinstance(item, Question)]
    if not (rules or requests or questions):
        raise ValueError(f"{', '.join(map(str, paths))}: no principle in there")
    critiques = [*map(_rule_critique, rules), *map(_requests_critique, requests)]
    feedback = [*map(_rule_feedback, rules), *map(_question_feedback, questions)]
    # A constitution has both parts; a part that no file has is made out of the other.
    critiques = critiques or [_question_critique(question) for question in questions]
    feedback = feedback or [_requests_feedback(asked) for asked in requests]
    ids: set[str] = set()
    return Constitution(
        name=name,
        version="0.1",
        description=" ".join(
            (
                *(item.text for item in items if isinstance(item, Remark)),
                f"Imported from {' and '.join(path.name for path in paths)}. Templates wrote what"
                " was not there: a person should go over every text, and above all over the"
                " opposites.",
            )
        ),
        authors=(author,),
        critique_revision=tuple(_signed(p, author, ids) for p in critiques),
        feedback=tuple(_signed(p, author, ids) for p in feedback),
        critique_examples=(),
        choice_examples=(),
        thought_examples=(),
    )


Principle = TypeVar("Principle", CritiquePrinciple, FeedbackPrinciple)


def _signed(principle: Principle, author: str, ids: set[str]) -> Principle:
    """The principle with its author, and an id that is none of ``ids``, to which it is added."""
    wanted = principle.id
    names = chain((wanted, f"{wanted}-compared"), (f"{wanted}-{n}" for n in count(2)))
    id_ = next(name for name in names if name not in ids)
    ids.add(id_)
    return replace(principle, id=id_, author=author, tags=principle.tags or (UNTAGGED,))


# Wording templates --------------------------------------------------------------------------------

_STANDS = "If it is so already, repeat it."
_NONE = "Quote it, or say that there is none."


def _rule_critique(rule: Rule) -> CritiquePrinciple:
    conduct = _conduct(rule.text)
    if conduct:
        asked = f"An assistant should {conduct.wanted('')}."
        wanted = (
            f"Rewrite your reply as an assistant would that makes sure {conduct.wanted('to ')}."
        )
    else:
        asked = f"An assistant is asked to keep to this: “{rule.text}”"
        wanted = f"Rewrite your reply so that it keeps to this: “{rule.text}”"
    place = f"Is there a place in your last reply that does otherwise? {_NONE}"
    return _critique(rule, f"{asked} {place}", f"{wanted} {_STANDS}")


def _rule_feedback(rule: Rule) -> FeedbackPrinciple:
    conduct = _conduct(rule.text)
    if conduct:
        asked = f"An assistant should {conduct.wanted('')}. Which response is more like that?"
        you = "You are an assistant that makes sure"
        wanted, unwanted = f"{you} {conduct.wanted('to ')}.", f"{you} {conduct.unwanted('to ')}."
    else:
        asked = f"An assistant is asked to keep to this: “{rule.text}” Which response does better?"
        wanted = f"You are an assistant that keeps to this: “{rule.text}”"
        unwanted = f"You are an assistant that goes against this: “{rule.text}”"
    return _feedback(rule, asked, wanted, unwanted)


def _requests_critique(asked: Requests) -> CritiquePrinciple:
    return _critique(asked, asked.critique, asked.revision)


def _requests_feedback(asked: Requests) -> FeedbackPrinciple:
    you = "You are an assistant whose replies are"
    return _feedback(
        asked,
        f"Which response is already more like what this asks for: “{asked.revision}”",
        f"{you} what this asks for: “{asked.revision}”",
        f"{you} never what this asks for: “{asked.revision}”",
    )


def _question_feedback(question: Question) -> FeedbackPrinciple:
    you = "You are an assistant whose replies are"
    return _feedback(
        question,
        question.text,
        f"{you} the better ones here: “{question.text}”",
        f"{you} never the better ones here: “{question.text}”",
    )


def _question_critique(question: Question) -> CritiquePrinciple:
    compared = f"Replies are compared like this: “{question.text}”"
    place = f"Is there a place in your last reply that speaks against it? {_NONE}"
    wanted = f"Rewrite your reply so that it comes out better. {_STANDS}"
    return _critique(question, f"{compared} {place}", f"{compared} {wanted}")


Named = Rule | Requests | Question


def _critique(item: Named, critique: str, revision: str) -> CritiquePrinciple:
    return CritiquePrinciple(item.id, "", item.tags, critique, revision)


def _feedback(item: Named, question: str, principle: str, opposite: str) -> FeedbackPrinciple:
    return FeedbackPrinciple(item.id, "", item.tags, question, principle, opposite)


@dataclass(frozen=True)
class _Conduct:
    """What an assistant should do, or not do, as a verb phrase: "be honest"."""

    phrase: str
    forbidden: bool

    def wanted(self, to: str) -> str:
        return f"{'not ' if self.forbidden else ''}{to}{self.phrase}"

    def unwanted(self, to: str) -> str:
        return f"{'' if self.forbidden else 'not '}{to}{self.phrase}"


_SHOULD = re.compile(
    r"(?:the |an? |our |this )?(?:ai assistant|assistant|ai|model|chatbot|you|it)"
    r" (?:should|must|shall|ought to|has to|have to|needs? to)"
    r" (?:always )?(?P<no>not |never )?(?P<phrase>.+)",
    re.IGNORECASE,
)
_COMMAND = re.compile(
    r"(?:please )?(?:(?P<no>never |do not |don[’']t )(?P<phrase>.+)|(?:always )(?P<always>.+)"
    r"|(?P<plain>(?:be|avoid) .+))",
    re.IGNORECASE,
)
# A phrase that goes on after its first clause cannot be turned around by one "not".
_MORE = re.compile(
    r"[.;:!?]|\b(?:not|never|nor|neither|no|but|unless|instead|rather|should|must)\b|n[’']t\b",
    re.IGNORECASE,
)


def _conduct(sentence: str) -> _Conduct | None:
    """What a sentence tells the assistant to do, if it says so in one clause."""
    match = _SHOULD.fullmatch(sentence.rstrip(". ")) or _COMMAND.fullmatch(sentence.rstrip(". "))
    if not match:
        return None
    parts = match.groupdict()
    phrase = next(parts[part] for part in ("phrase", "always", "plain") if parts.get(part))
    if _MORE.search(phrase):
        return None
    return _Conduct(phrase[0].lower() + phrase[1:], bool(parts["no"]))


# Formats ------------------------------------------------------------------------------------------


def _items(path: Path) -> Iterator[Item]:
    reader = READERS.get(path.suffix.lower())
    if not reader:
        raise ValueError(f"{path}: import reads files that end with {', '.join(READERS)}")
    return reader(path, read_text(path))


def _lines(path: Path, text: str) -> Iterator[Item]:
    """One principle a line; blank lines, and marks of a list before it, say nothing."""
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path}, line {number}"
        if line.lstrip().startswith("#"):
            raise ValueError(f"{where}: a heading; give the file a name that ends with .md")
        if line.strip():
            said = _sentence(re.sub(r"^\s*(?:[-*•]|\d+[.)])\s+", "", line), where)
            yield Rule(_short(said, where), (), said)


def _markdown(path: Path, text: str) -> Iterator[Item]:
    """Items of lists, tagged with the headings above them; titles and paragraphs are remarks."""
    headings: dict[int, str] = {}
    for node in SyntaxTreeNode(MarkdownIt().parse(text)).children:
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
                f"{where}: a {node.type.replace('_', ' ')} is neither heading, paragraph nor list;"
                " write it as one of these"
            )


def _list_item(path: Path, item: SyntaxTreeNode, tags: tuple[str, ...]) -> Item:
    where = f"{path}, line {item.map[0] + 1 if item.map else 1}"
    inner = next((node for node in item.children if node.type != "paragraph"), None)
    if inner:
        line = inner.map[0] + 1 if inner.map else 1
        kind = inner.type.replace("_", " ")
        raise ValueError(
            f"{path}, line {line}: a {kind} inside of an item; make it items of their own"
        )
    text = " ".join(_inline(node.children[0], where) for node in item.children)
    # "**Honesty**: The assistant ..." names its principle.
    named = re.match(r"(\*\*|__)(.+?)(?::\1|\1:)\s+\S", item.children[0].children[0].content)
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
    raise ValueError(f"{where}: {node.type.replace('_', ' ')} cannot be read; write it in words")


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
        raise ValueError(f"{path}: must be a list, or a mapping from names to principles")
    for name, value in named or (("", value) for value in found):
        quoted = json.dumps(name or value)
        line = text.count("\n", 0, max(0, text.find(quoted))) + 1
        yield from _json_item(f"{path}, line {line}", name, value)


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
        raise ValueError(
            f"{where}: {name or 'an entry'} is neither a sentence nor a mapping of prompt and"
            " edit_request alone; take out what else is in it"
        )


def _sentence(text: str, where: str) -> str:
    said = _clean(text, where)
    if len(said.split()) < 2:
        raise ValueError(f"{where}: {said!r} is no sentence; say what the assistant should do")
    return said if said[-1] in ".!?" else f"{said}."


def _clean(text: str, where: str) -> str:
    """The text on one line."""
    said = " ".join(text.split())
    if not said:
        raise ValueError(f"{where}: an empty text; write one, or take it out")
    if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in said):
        raise ValueError(f"{where}: control characters; take them out")
    # Templates set it in the curly marks.
    return said.replace("“", "'").replace("”", "'")


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
