"""Readers of prompts, labelled pairs, choices, twins, classed replies and demonstrations.

A format is the fields that its rows have and a function that reads such a row: one function and
one entry of its reader's formats, such as PROMPT_FORMATS, add one. Rows of prompts and pairs may
name a ``group``, which is split as one. Every reader raises a ValueError that names file, line,
field and remedy.
"""

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from cai_jax.data.jsonl import JsonRow, json_rows, jsonl_rows
from cai_jax.prompts.messages import Dialogue, Message, assistant, user
from cai_jax.reading import FileError, read_text

_ROLES = ("system", "user", "assistant")
_HH_TURN = re.compile(r"\n\n(Human|Assistant):")
_HH_SPEAKERS = {"Human": user, "Assistant": assistant}
_LETTER = re.compile(r"\(?[A-Z]\)?|\(\w\)")  # that stands for an option
ALL = "all"  # the group of all items, beside those of each category
# What a reply does: refuses without a reason, refuses with one, does what is asked.
REPLY_CLASSES = ("unexplained", "explained", "engages")
_WHOLE_DIALOGUE = re.compile(r"Human:(?s:.*)\n\nAssistant:")
log = logging.getLogger("cai_jax")


class NothingToLearnError(FileError):
    """A row from which nothing can be learned; the message says it of several rows."""


@dataclass(frozen=True)
class Prompt:
    """A dialogue up to where the assistant is to reply."""

    id: str
    messages: Dialogue
    group: str = ""  # rows of one group are split as one; empty: by the user's first turn
    tags: tuple[str, ...] = ()  # kinds of harm that it asks for, as principles are tagged


@dataclass(frozen=True)
class Attack(Prompt):
    """A prompt that an attacker wrote, or that it learns to write from, and where it comes from.

    Attributes:
      strategy: of cai_jax/red_teaming/strategies/.
      round: in which it was written; 0: it is a seed.
      seed: of the attacker's samples.
      model: that wrote it; empty: a person.
      parents: ids of the prompts that the attacker was shown.
    """

    strategy: str = "direct"
    round: int = 0
    seed: int = 0
    model: str = ""
    parents: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelledPair:
    """Two responses to one prompt, of which ``chosen`` is the better."""

    id: str
    messages: Dialogue
    chosen: str
    rejected: str
    group: str = ""  # as in Prompt


@dataclass(frozen=True)
class Choice:
    """Options after one prompt, of which some are right; ``row`` is where they stand."""

    id: str
    category: str  # empty: the file names none
    messages: Dialogue
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    row: JsonRow = field(repr=False, compare=False)

    @property
    def options(self) -> tuple[str, ...]:
        """All of them, the right ones first."""
        return (*self.right, *self.wrong)


@dataclass(frozen=True)
class Text:
    """Plain text; ``row`` is where it stands."""

    id: str
    category: str
    text: str
    row: JsonRow = field(repr=False, compare=False)


@dataclass(frozen=True)
class Twins:
    """Two prompts of nearly the same words, of which one asks for harm."""

    id: str
    safe: Dialogue
    unsafe: Dialogue

    @property
    def prompts(self) -> tuple[Dialogue, ...]:
        """Both."""
        return self.safe, self.unsafe


@dataclass(frozen=True)
class ClassedReply:
    """A reply to a prompt, and which of REPLY_CLASSES people find it to be."""

    id: str
    messages: Dialogue
    reply: str
    label: str

    @property
    def prompts(self) -> tuple[Dialogue, ...]:
        """The one that is replied to."""
        return (self.messages,)


@dataclass(frozen=True)
class RevisionDemonstration:
    """A dialogue, a reply to it, and how the reply is criticised and revised under a principle.

    Where the critique finds no harm, ``revision`` is ``response``.
    """

    id: str
    messages: Dialogue
    response: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str


@dataclass(frozen=True)
class ChoiceDemonstration:
    """A dialogue, two replies to it, and how the better one is found."""

    id: str
    messages: Dialogue
    question: str
    option_a: str
    option_b: str
    answer: str  # "A" or "B"
    reasoning: str


Demonstration = RevisionDemonstration | ChoiceDemonstration


def _text_prompt(row: JsonRow) -> Prompt:
    """One user's turn: ``prompt`` is its text, whatever stands in it; or turns, as below."""
    if isinstance(row.fields["prompt"], list):
        return Prompt(row.id, _dialogue(row, "prompt"))
    return Prompt(row.id, (user(_filled(row, "prompt")),))


def _messages_prompt(row: JsonRow) -> Prompt:
    """Turns as chat templates take them: ``messages`` of ``role`` and ``content``."""
    return Prompt(row.id, _dialogue(row, "messages"))


def _pair(row: JsonRow) -> LabelledPair:
    """A prompt in any format, with ``chosen`` and ``rejected`` as replies, or turns to them."""
    prompt, sides = read_prompt(row), ("chosen", "rejected")
    for side in sides:
        if not _are_turns(row, side) and _WHOLE_DIALOGUE.match(_filled(row, side)):
            raise row.error(
                f"field {side!r} is a whole dialogue beside another prompt; give the reply alone, "
                "or take the other prompt out"
            )
    if all(_are_turns(row, side) for side in sides):
        _check_same_prompt(row, *(_last_reply(row, side)[0] for side in sides))
    chosen, rejected = (
        _last_reply(row, side)[1] if _are_turns(row, side) else _filled(row, side) for side in sides
    )
    return LabelledPair(row.id, prompt.messages, chosen, rejected)


def _dialogue_pair(row: JsonRow) -> LabelledPair:
    """Whole dialogues, as messages or with hh-rlhf's marks; the last turn of each is the reply."""
    return _split_pair(row, "chosen", "rejected")


def _split_pair(row: JsonRow, better: str, worse: str) -> LabelledPair:
    prompt, chosen = _last_reply(row, better)
    before_rejected, rejected = _last_reply(row, worse)
    if not any(m.text for m in prompt if m.role == "user") or not before_rejected:
        raise row.error("no 'Human:' turn stands before the last 'Assistant:' turn; add it")
    _check_same_prompt(row, prompt, before_rejected)
    # A reply may be empty: hh-rlhf has dialogues in which the assistant stays silent.
    return LabelledPair(row.id, prompt, chosen, rejected)


def _big_bench_choice(row: JsonRow) -> Choice:
    """BIG-bench's task.json: ``target_scores`` gives every reply its score, the right ones most."""
    scores = row.fields["target_scores"]
    if not isinstance(scores, dict) or not all(
        isinstance(v, int | float) and not isinstance(v, bool) for v in scores.values()
    ):
        raise row.error(f"field 'target_scores' must give numbers by reply, found {scores!r}")
    best = max(scores.values(), default=0)
    sides = (
        [t.strip() for t, v in scores.items() if v == best],
        [t.strip() for t, v in scores.items() if v < best],
    )
    return _choice(row, _hh_prompt(row, "input"), *sides)


def _paper_choice(row: JsonRow) -> Choice:
    """A dialogue with marks, and replies that are right and that are not.

    Raises:
      ValueError: they are but the letters of options.
    """
    sides = _sides(row, "corrects", "incorrects")
    if all(_LETTER.fullmatch(text) for side in sides for text in side):
        found = ", ".join([*sides[0], *sides[1]])
        raise row.error(
            f"the options are letters, not replies ({found}); try the file with --task=questions, "
            "or give whole dialogues as 'text_correct' and 'text_incorrect'"
        )
    return _choice(row, _hh_prompt(row, "prompt"), *sides)


def _paper_dialogues(row: JsonRow) -> Choice:
    """The paper's own comparisons: ``prompt`` asks for a letter, the replies end two dialogues."""
    pair = _split_pair(row, "text_correct", "text_incorrect")
    return _choice(row, pair.messages, [pair.chosen], [pair.rejected])


def _chosen_choice(row: JsonRow) -> Choice:
    """RewardBench: ``chosen`` and ``rejected`` are replies, or lists of them, or turns to one."""
    prompt = read_prompt(row)
    if _are_turns(row, "chosen") or _are_turns(row, "rejected"):
        pair = _pair(row)
        return _choice(row, prompt.messages, [pair.chosen], [pair.rejected])
    sides = _sides(row, "chosen", "rejected")
    return _choice(row, prompt.messages, *sides)


def _pair_choice(row: JsonRow) -> Choice:
    """Whole dialogues, such as those of hh-rlhf."""
    pair = _dialogue_pair(row)
    return _choice(row, pair.messages, [pair.chosen], [pair.rejected])


def _twins(row: JsonRow) -> Twins:
    """One user's turn each."""
    return Twins(row.id, (user(_filled(row, "safe")),), (user(_filled(row, "unsafe")),))


def _classed_reply(row: JsonRow) -> ClassedReply:
    """A prompt in any format, a reply and its class."""
    if (label := row.text("label")) not in REPLY_CLASSES:
        raise row.error(f"field 'label' must be one of {', '.join(REPLY_CLASSES)}, found {label!r}")
    return ClassedReply(row.id, read_prompt(row).messages, row.text("reply").strip(), label)


def _revision_demonstration(row: JsonRow) -> RevisionDemonstration:
    """A prompt in any format, and the texts of REVISION_FIELDS."""
    _check_kind(row, "critique_revision")
    texts = {name: _filled(row, name) for name in REVISION_FIELDS}
    return RevisionDemonstration(row.id, read_prompt(row).messages, **texts)


def _choice_demonstration(row: JsonRow) -> ChoiceDemonstration:
    """A prompt in any format, and the texts of CHOICE_FIELDS; the options differ."""
    _check_kind(row, "choice")
    texts = {name: _filled(row, name) for name in CHOICE_FIELDS}
    if texts["answer"] not in ("A", "B"):
        raise row.error(f"field 'answer' must be 'A' or 'B', found {texts['answer']!r}")
    if texts["option_a"] == texts["option_b"]:
        raise row.error("fields 'option_a' and 'option_b' are the same; there is nothing to choose")
    return ChoiceDemonstration(row.id, read_prompt(row).messages, **texts)


def _check_kind(row: JsonRow, kind: str) -> None:
    if row.text("kind") != kind:
        raise row.error(f"a row with these fields is of kind {kind!r}, found {row.text('kind')!r}")


# By the fields that a row of the format has.
PROMPT_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], Prompt]] = {
    ("prompt",): _text_prompt,
    ("messages",): _messages_prompt,
}
PAIR_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], LabelledPair]] = {
    ("prompt", "chosen", "rejected"): _pair,
    ("messages", "chosen", "rejected"): _pair,
    ("chosen", "rejected"): _dialogue_pair,
}
TWIN_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], Twins]] = {("safe", "unsafe"): _twins}
REPLY_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], ClassedReply]] = {
    ("prompt", "reply", "label"): _classed_reply,
    ("messages", "reply", "label"): _classed_reply,
}
CHOICE_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], Choice]] = {
    ("input", "target_scores"): _big_bench_choice,
    ("prompt", "corrects", "incorrects"): _paper_choice,
    ("prompt", "corrects", "incorrects", "text_correct", "text_incorrect"): _paper_dialogues,
    ("prompt", "chosen", "rejected"): _chosen_choice,
    ("messages", "chosen", "rejected"): _chosen_choice,
    ("chosen", "rejected"): _pair_choice,
}
# What demonstrations have beside the prompt.
REVISION_FIELDS = ("response", "critique_request", "critique", "revision_request", "revision")
CHOICE_FIELDS = ("question", "option_a", "option_b", "answer", "reasoning")
DEMONSTRATION_FORMATS: dict[tuple[str, ...], Callable[[JsonRow], Demonstration]] = {
    ("kind", "prompt", *REVISION_FIELDS): _revision_demonstration,
    ("kind", "messages", *REVISION_FIELDS): _revision_demonstration,
    ("kind", "prompt", *CHOICE_FIELDS): _choice_demonstration,
    ("kind", "messages", *CHOICE_FIELDS): _choice_demonstration,
}
CATEGORY_FIELDS = ("category", "subset", "name")  # the first that a row has
Item = TypeVar("Item", Prompt, LabelledPair, Choice, Text, Twins, ClassedReply, Demonstration)


class HasId(Protocol):
    """What has a name within its file."""

    @property
    def id(self) -> str:
        """The name."""


Identified = TypeVar("Identified", bound=HasId)
Grouped = TypeVar("Grouped", Prompt, LabelledPair)


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a .jsonl or .jsonl.gz file, in any of PROMPT_FORMATS.

    ``id`` and ``tags`` are optional.
    """
    return unique(path, [_tagged(row, read_prompt(row)) for row in jsonl_rows(path)], "prompts")


def read_attacks(path: Path) -> list[Attack]:
    """Prompts, as ``read_prompts`` does, with the fields of ``Attack``, which are all optional."""
    return unique(path, [_attack(row) for row in jsonl_rows(path)], "attacks")


def _attack(row: JsonRow) -> Attack:
    """Provenance is as write_attacks of cai_jax/red_teaming/attacks.py leaves it."""
    prompt, said = _tagged(row, read_prompt(row)), row.fields
    parents = said.get("parents", [])
    if not isinstance(parents, list) or not all(isinstance(p, str) for p in parents):
        raise row.error(f"field 'parents' must be a list of ids, found {parents!r}")
    for name in ("round", "seed"):
        if type(said.get(name, 0)) is not int:
            raise row.error(f"field {name!r} must be a whole number, found {said[name]!r}")
    return Attack(
        **vars(prompt),
        strategy=row.text("strategy") if "strategy" in said else "direct",
        model=row.text("model") if "model" in said else "",
        round=said.get("round", 0),
        seed=said.get("seed", 0),
        parents=tuple(parents),
    )


def read_prompt(row: JsonRow) -> Prompt:
    """The prompt of a row, in any of PROMPT_FORMATS."""
    return _in_group(row, _read(row, PROMPT_FORMATS, "prompt"))


def read_pairs(path: Path) -> list[LabelledPair]:
    """Labelled pairs of a .jsonl or .jsonl.gz file, in any of PAIR_FORMATS; ``id`` is optional."""
    pairs = _usable(path, jsonl_rows(path), read_pair, "pairs")
    return unique(path, pairs, "pairs")


def read_pair(row: JsonRow) -> LabelledPair:
    """The labelled pair of a row, in any of PAIR_FORMATS.

    Raises:
      NothingToLearnError: both sides are the same.
      FileError: it is no pair.
    """
    pair = _in_group(row, _read(row, PAIR_FORMATS, "pair"))
    if pair.chosen == pair.rejected:
        raise NothingToLearnError(row.path, "its sides are the same", row.line)
    return pair


def _usable(
    path: Path, rows: Iterable[JsonRow], read: Callable[[JsonRow], Item], what: str
) -> list[Item]:
    """Rows as ``read`` reads them, without those that tell nothing; a warning counts these."""
    found: list[Item] = []
    lines: dict[str, list[int]] = {}  # that are left out, by the reason
    for row in rows:
        try:
            found.append(read(row))
        except NothingToLearnError as error:
            lines.setdefault(error.problem, []).append(row.line)
    for problem, at in lines.items():
        log.warning(
            "%s: %d %s are left out: %s (the first is on line %d)",
            *(path, len(at), what, problem, at[0]),
        )
    if lines and not found:
        raise FileError(path, f"all its {what} are left out: {', '.join(lines)}; correct them")
    return found


def read_twins(path: Path) -> list[Twins]:
    """Twins of a .jsonl or .jsonl.gz file: fields ``safe`` and ``unsafe``; ``id`` is optional."""
    return unique(path, [read_twin(row) for row in jsonl_rows(path)], "twins")


def read_twin(row: JsonRow) -> Twins:
    """The twins of a row, in any of TWIN_FORMATS."""
    return _read(row, TWIN_FORMATS, "row of twins")


def read_classed_replies(path: Path) -> list[ClassedReply]:
    """Classed replies of a .jsonl or .jsonl.gz file, in any of REPLY_FORMATS."""
    found = [_read(row, REPLY_FORMATS, "classed reply") for row in jsonl_rows(path)]
    return unique(path, found, "replies")


def read_demonstrations(path: Path) -> list[Demonstration]:
    """Demonstrations of a .jsonl or .jsonl.gz file, in any of DEMONSTRATION_FORMATS."""
    found = [_read(row, DEMONSTRATION_FORMATS, "demonstration") for row in jsonl_rows(path)]
    return unique(path, found, "demonstrations")


def read_choices(path: Path) -> list[Choice]:
    """Choices between replies, in any of CHOICE_FORMATS; see ``read_rows`` for the files.

    Published files have some that nobody can win, since the right reply is empty or all wrong ones
    are the same as it: they are left out, and a warning says how many.
    """
    read = lambda row: _read(row, CHOICE_FORMATS, "choice")
    choices = _usable(path, read_rows(path), read, "choices")
    unique(path, choices, "choices")
    fair = [choice for choice in choices if choice.right and choice.wrong]
    if odd := [choice.row.line for choice in choices if not (choice.right and choice.wrong)]:
        log.warning(
            "%s: %d of %d choices are left out: their right reply is empty, or the wrong ones are "
            "no others (the first is on line %d)",
            *(path, len(odd), len(choices), odd[0]),
        )
    return unique(path, fair, "choices that can be won")


def read_questions(path: Path) -> list[Choice]:
    """Questions with options, both as plain text and as they stand, in the paper's own format."""
    questions = []
    for row in read_rows(path):
        sides = [_texts(row, side) for side in ("corrects", "incorrects")]
        _filled(row, "prompt")
        question = _choice(row, (user(row.text("prompt")),), *sides)
        if len(question.options) < sum(map(len, sides)) or not all(map(str.strip, question.wrong)):
            raise row.error("an option is empty or stands twice; give each its letter")
        questions.append(question)
    return unique(path, questions, "questions")


def read_texts(path: Path) -> list[Text]:
    """Plain text: ``text`` of rows, see ``read_rows``; or a .txt file, which is one."""
    if path.suffix == ".txt":
        rows = [JsonRow(path, 1, {"text": read_text(path)})]
    else:
        rows = read_rows(path)
    texts = []
    for row in rows:
        _filled(row, "text")
        texts.append(Text(row.id, category_of(row), row.text("text"), row))
    return unique(path, texts, "texts")


def category_of(row: JsonRow) -> str:
    """What kind of item a row is, where it says so.

    Raises:
      ValueError: it has the name of the group of all items.
    """
    name = next((n for n in CATEGORY_FIELDS if row.fields.get(n)), None)
    category = "" if name is None else str(row.fields[name])
    if category == ALL:
        raise row.error(f"field {name!r} is {ALL!r}, the name of all items together; rename it")
    return category


def read_rows(path: Path) -> list[JsonRow]:
    """Rows of a .jsonl, .jsonl.gz or .json file, or of a task's folder as BIG-bench has it.

    There, each subfolder with a task.json is a part, and ids begin with its name.
    """
    if parts := sorted(path.glob("*/task.json")):
        return [
            replace(row, fields=row.fields | {"id": f"{part.parent.name}/{row.id}"})
            for part in parts
            for row in json_rows(part, "examples")
        ]
    file = path / "task.json" if path.is_dir() else path
    return list(json_rows(file, "examples") if file.suffix == ".json" else jsonl_rows(file))


def _read(
    row: JsonRow, formats: Mapping[tuple[str, ...], Callable[[JsonRow], Item]], what: str
) -> Item:
    """A row in the format of which it has most fields."""
    fitting = [names for names in formats if row.fields.keys() >= set(names)]
    best = [names for names in fitting if len(names) == max(map(len, fitting))]
    if len(best) != 1:
        known = "; or ".join(", ".join(map(repr, names)) for names in formats)
        found = ", ".join(map(repr, sorted(row.fields))) or "none"
        raise row.error(f"found the fields {found}; write a {what} as one of: {known}")
    return formats[best[0]](row)


def _in_group(row: JsonRow, item: Grouped) -> Grouped:
    named = row.fields.get("group") is not None
    return replace(item, group=_filled(row, "group")) if named else item


def _tagged(row: JsonRow, prompt: Prompt) -> Prompt:
    named = row.fields.get("tags") is not None
    return replace(prompt, tags=tuple(_texts(row, "tags"))) if named else prompt


def unique(path: Path, items: list[Identified], what: str) -> list[Identified]:
    """The items of a file, refused where there are none or two have one id, as 1 and "1" have."""
    if not items:
        raise ValueError(f"{path}: holds no {what}; write one JSON object a line")
    seen = set()
    for item in items:
        if item.id in seen:
            first, second, *_ = lines_of(path, item.id)
            raise FileError(
                path,
                f"id {item.id!r} stands twice, on line {first} too; make the ids unique",
                second,
            )
        seen.add(item.id)
    return items


def lines_of(path: Path, id_: str) -> list[int]:
    """The lines of a file on which rows of an id begin."""
    return [row.line for row in read_rows(path) if row.id == id_]


def _filled(row: JsonRow, field: str) -> str:
    text = row.text(field).strip()
    if not text:
        raise row.error(f"field {field!r} must be a non-empty text, found {row.text(field)!r}")
    return text


def _choice(row: JsonRow, messages: Dialogue, right: Sequence[str], wrong: Sequence[str]) -> Choice:
    """Each option once, and none both right and wrong; silence may be wrong, never right."""
    if not right or not wrong:
        raise row.error(
            f"found {len(right)} right and {len(wrong)} wrong options; give at least one of each"
        )
    good = tuple(text for text in dict.fromkeys(right) if text.strip())
    bad = tuple(text for text in dict.fromkeys(wrong) if text not in good)
    return Choice(row.id, category_of(row), messages, good, bad, row)


def _sides(row: JsonRow, right: str, wrong: str) -> list[list[str]]:
    return [[text.strip() for text in _texts(row, side)] for side in (right, wrong)]


def _texts(row: JsonRow, field: str) -> list[str]:
    """A field that is a text or a list of texts."""
    found = row.fields.get(field)
    texts = [found] if isinstance(found, str) else found
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise row.error(f"field {field!r} must be texts, found {found!r}")
    return texts


def _hh_prompt(row: JsonRow, field: str) -> Dialogue:
    """A dialogue with marks, where it has any, up to where the assistant is to reply."""
    turns = _hh_turns(f"\n\n{_filled(row, field)}")
    if not turns or turns[-1].role != "user" or not turns[-1].text:
        raise row.error(f"field {field!r} must end with what the user says, not with a reply")
    return turns


def _are_turns(row: JsonRow, field: str) -> bool:
    """Whether a field is a list of messages, not of texts."""
    found = row.fields[field]
    return isinstance(found, list) and any(isinstance(item, dict) for item in found)


def _dialogue(row: JsonRow, field: str) -> Dialogue:
    """A list of messages; only the first may be the system's, and the user has the last word."""
    messages = _messages(row, field, row.fields[field])
    if not messages:
        raise row.error(f"field {field!r} must be a list of messages, found []")
    if messages[-1].role != "user":
        raise row.error(
            f"field {field!r} ends with a turn of {messages[-1].role!r}; end it with the user's "
            "turn that is to be answered"
        )
    return messages


def _messages(row: JsonRow, field: str, found: Any) -> Dialogue:
    if not isinstance(found, list):
        raise row.error(f"field {field!r} must be a list of messages, found {found!r}")
    messages = _joined(_message(row, f"{field}[{i}]", item) for i, item in enumerate(found))
    if any(message.role == "system" for message in messages[1:]):
        raise row.error(f"field {field!r} has a system message later on; it must be the first")
    return messages


def _message(row: JsonRow, where: str, item: Any) -> Message:
    if not isinstance(item, dict) or item.get("role") not in _ROLES:
        raise row.error(f"{where} must have a 'role' of {', '.join(_ROLES)}, found {item!r}")
    content = item.get("content")
    if not isinstance(content, str) or not content.strip():
        raise row.error(f"{where} must have a non-empty text as its 'content', found {content!r}")
    return Message(item["role"], content.strip())


def _last_reply(row: JsonRow, field: str) -> tuple[Dialogue, str]:
    """What stands before the assistant's last turn of a dialogue, and that turn's text."""
    if _are_turns(row, field):
        *before, last = row.fields[field]
        reply = last.get("content") if isinstance(last, dict) else None
        if not isinstance(reply, str) or last.get("role") != "assistant":
            raise row.error(f"field {field!r} must end in the assistant's turn, found {last!r}")
        return _messages(row, field, before), reply.strip()
    text = f"\n\n{_filled(row, field)}"
    before, mark, reply = text.rpartition("\n\nAssistant:")
    if not mark:
        raise row.error(
            f"field {field!r} must end in an 'Assistant:' turn where neither 'prompt' nor "
            "'messages' stands beside it"
        )
    if "\n\nHuman:" in reply:
        raise NothingToLearnError(row.path, "they end with what the user says", row.line)
    *prompt, last = _joined((*_hh_turns(before.rstrip()), assistant(reply.strip())))
    return tuple(prompt), last.text


def _check_same_prompt(row: JsonRow, one: Dialogue, other: Dialogue) -> None:
    if one != other:
        problem = "their sides answer different prompts"
        raise NothingToLearnError(row.path, problem, row.line)


def _joined(turns: Iterable[Message]) -> Dialogue:
    """Turns by turns: what one says twice in a row is one turn, as chat templates ask."""
    joined: list[Message] = []
    for turn in turns:
        if joined and joined[-1].role == turn.role:
            said = [text for text in (joined[-1].text, turn.text) if text]
            joined[-1] = Message(turn.role, "\n\n".join(said))
        else:
            joined.append(turn)
    return tuple(joined)


def _hh_turns(text: str) -> Dialogue:
    """Turns of an hh-rlhf dialogue, each opened by its mark; the user's may lack the first mark."""
    opening, *parts = _HH_TURN.split(text)
    turns = [user(opening.strip())] if opening.strip() else []
    for speaker, said in zip(parts[::2], parts[1::2], strict=True):
        turns.append(_HH_SPEAKERS[speaker](said.strip()))
    if turns and turns[-1] == assistant(""):  # silent before it replies
        turns.pop()
    return _joined(turns)
