"""Makes a constitution out of other formats: published JSON, a sentence a line, a Markdown list.

What a format lacks is written by wording templates, which are all in this file. They are plain on
purpose: a person goes over the result, above all over each ``opposite``.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from pathlib import Path
from typing import TypeVar

from cai_jax.constitution.formats import Item, Question, Remark, Requests, Rule, items_of
from cai_jax.constitution.schema import Constitution, CritiquePrinciple, FeedbackPrinciple
from cai_jax.letters import odd_letter, seen

UNTAGGED = "imported"
MOST = 1000  # principles and remarks; a constitution of more is too large a file to be read again


def import_constitution(paths: Sequence[Path], name: str, author: str) -> Constitution:
    """A constitution with all that the files hold, in their order.

    Args:
      paths: files whose names end with .json, .txt or .md.
      name: of the constitution.
      author: of every principle.

    Raises:
      ValueError: something in a file cannot be read; the message names its line. Or no constitution
        may have such a name, or such an author.
    """
    for flag, text in (("name", name), ("author", author)):
        if problem := odd_letter(text) or ("" if seen(text).strip() else "is empty; write one"):
            raise ValueError(f"--{flag}={text!r} {problem}")
    items = _items(paths)
    rules = [item for item in items if isinstance(item, Rule)]
    requests = [item for item in items if isinstance(item, Requests)]
    questions = [item for item in items if isinstance(item, Question)]
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


def _items(paths: Sequence[Path]) -> list[Item]:
    """What the files hold, if there is a principle in it."""
    items = list(islice((item for path in paths for item in items_of(path)), MOST + 1))
    if len(items) > MOST:
        named = ", ".join(map(str, paths))
        raise ValueError(f"{named}: more than {MOST} principles; import parts of them")
    if all(isinstance(item, Remark) for item in items):
        places = ", ".join(f"{path}, line 1" for path in paths)
        remedy = "write each as an item of a list (.md), a line (.txt) or an entry (.json)"
        raise ValueError(f"{places}: no principle in there; {remedy}")
    return items


Principle = TypeVar("Principle", CritiquePrinciple, FeedbackPrinciple)


def _signed(principle: Principle, author: str, ids: set[str]) -> Principle:
    """The principle with its author, and an id that is none of ``ids``, to which it is added."""
    wanted = principle.id
    if isinstance(principle, FeedbackPrinciple) and wanted in ids:
        wanted = f"{wanted}-compared"  # what that critique asks for
    names = chain((wanted,), (f"{wanted}-{n}" for n in count(2)))
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
