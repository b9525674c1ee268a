"""The schema of a constitution file, and its validation.

Every error names file, line, field and remedy. The content hash covers what the models read, not
comments or layout. Every artifact made under the constitution records it.
"""

import difflib
import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Set
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml

from cai_jax.letters import odd_letter, odd_name, seen
from cai_jax.reading import FileError, compose_yaml


@dataclass(frozen=True)
class CritiquePrinciple:
    """A principle of the supervised stage: a request for a critique, and one for a revision.

    ``weight`` says how often it is drawn, beside the others. ``author`` is a text, and the list of
    them where there are several (see ``authors_of``).
    """

    id: str
    author: str | tuple[str, ...]
    tags: tuple[str, ...]
    critique_request: str
    revision_request: str
    weight: float = 1.0


@dataclass(frozen=True)
class FeedbackPrinciple:
    """A principle of the feedback stage.

    ``question`` asks which of two responses is better. ``principle`` and ``opposite`` are system
    prompts for an assistant that follows the principle and for one that violates it. ``weight``
    says how often it is drawn, beside the others; ``author`` as above.
    """

    id: str
    author: str | tuple[str, ...]
    tags: tuple[str, ...]
    question: str
    principle: str
    opposite: str
    weight: float = 1.0


def authors_of(principle: CritiquePrinciple | FeedbackPrinciple) -> tuple[str, ...]:
    """Whoever wrote a principle: one author, or several."""
    author = principle.author
    return (author,) if isinstance(author, str) else author


@dataclass(frozen=True)
class CritiqueExample:
    """A few-shot example of one critique and revision."""

    id: str
    prompt: str
    response: str
    critique_request: str
    critique: str
    revision_request: str
    revision: str


@dataclass(frozen=True)
class ChoiceExample:
    """A few-shot example of a comparison; ``reasoning`` only for chain of thought."""

    id: str
    prompt: str
    question: str
    option_a: str
    option_b: str
    answer: str  # "A" or "B"
    reasoning: str = ""


@dataclass(frozen=True)
class Case:
    """A comparison whose answer its authors are sure of: what principles are tested by.

    ``dialogue`` has turns of user and assistant by turns, the user's first and last; ``principles``
    are ids of feedback principles that prefer ``better``. No stage reads cases.
    """

    id: str
    dialogue: tuple[str, ...]
    better: str
    worse: str
    principles: tuple[str, ...]


WEIGHTS = (1e-3, 1e3)  # the lowest and the highest: a draw must be able to reach every principle
ABOUT = {"name", "version", "description", "authors"}  # what is no text of a model
NAME = 60  # letters by which an id is told from others in an error
UNHASHED = {"cases"}  # what nothing that a run makes depends on


@dataclass(frozen=True)
class Constitution:
    """A constitution: principles, few-shot examples, and cases that test the principles."""

    name: str
    version: str
    description: str
    authors: tuple[str, ...]
    critique_revision: tuple[CritiquePrinciple, ...]
    feedback: tuple[FeedbackPrinciple, ...]
    critique_examples: tuple[CritiqueExample, ...]
    choice_examples: tuple[ChoiceExample, ...]
    thought_examples: tuple[ChoiceExample, ...]
    cases: tuple[Case, ...] = ()

    def only(self, parts: Collection[str]) -> "Constitution":
        """The constitution without the principles and few-shots of other parts.

        Args:
          parts: names of fields, ``critique_revision`` and those below it.
        """
        kept = {f.name: getattr(self, f.name) for f in fields(self) if f.name in {*ABOUT, *parts}}
        return Constitution(**dict.fromkeys((f.name for f in fields(self)), ()) | kept)

    def content_hash(self) -> str:
        """SHA-256 of all fields but the cases, in hex."""
        content = {name: value for name, value in asdict(self).items() if name not in UNHASHED}
        text = json.dumps(content, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode("utf-8")).hexdigest()


class ConstitutionError(ValueError):
    """A constitution file is not valid; the message names file, line, field and remedy."""

    def __init__(self, problem: str, path: Path | None = None, line: int | None = None):
        self.problem, self.line = problem, line
        where = f"{path}, line {line}: " if line else f"{path}: "
        super().__init__(f"{where if path else ''}{problem}")


@dataclass(frozen=True)
class Located:
    """A constitution, and where in its file each field stands.

    Attributes:
      path: of the file.
      constitution: that it holds.
      lines: where the value of each field begins, from 1, by the entry's id and the field's name.
        Fields of the file itself, such as authors, have ``""`` for an id.
    """

    path: Path
    constitution: Constitution
    lines: Mapping[tuple[str, str], int]


def load_constitution(path: Path) -> Constitution:
    """Reads and validates a constitution file.

    Raises:
      ConstitutionError: the file is missing, not YAML, or not a constitution.
    """
    return locate_constitution(path).constitution


def locate_constitution(path: Path) -> Located:
    """Reads and validates a constitution file, and says at which lines its fields stand.

    Raises:
      ConstitutionError: the file is missing, not YAML, or not a constitution.
    """
    try:
        root = compose_yaml(path)
    except FileError as error:
        raise ConstitutionError(error.problem, path, error.line) from error
    reader = _Reader(path)
    return Located(path, reader.constitution(root), reader.lines)


_Entry = TypeVar(
    "_Entry", CritiquePrinciple, FeedbackPrinciple, CritiqueExample, ChoiceExample, Case
)


class _Reader:
    """Reads YAML nodes, which know their lines."""

    def __init__(self, path: Path):
        self.path = path
        self.ids: dict[str, int] = {}  # the lines of the entries
        self.lines: dict[tuple[str, str], int] = {}  # of fields, as Located has them

    def constitution(self, root: yaml.Node | None) -> Constitution:
        top = self.mapping(
            root,
            "the file",
            {"name", "version", "description", "authors", "critique_revision", "feedback"},
            {"few_shots", "cases"},
        )
        self.lines |= {("", name): node.start_mark.line + 1 for name, node in top.items()}
        kinds = {"critique_revision", "multiple_choice", "chain_of_thought"}
        shots = (
            self.mapping(top["few_shots"], "few_shots", set(), kinds) if "few_shots" in top else {}
        )
        constitution = Constitution(
            name=self.text(top["name"], "name"),
            version=self.text(top["version"], "version"),
            description=self.text(top["description"], "description"),
            authors=self.texts(top["authors"], "authors"),
            critique_revision=self.entries(top, "critique_revision", CritiquePrinciple),
            feedback=self.entries(top, "feedback", FeedbackPrinciple),
            critique_examples=self.entries(shots, "critique_revision", CritiqueExample),
            choice_examples=self.entries(shots, "multiple_choice", ChoiceExample, {"reasoning"}),
            thought_examples=self.entries(shots, "chain_of_thought", ChoiceExample),
        )
        return replace(constitution, cases=self.cases(top, [p.id for p in constitution.feedback]))

    def cases(self, top: dict[str, yaml.Node], known: Collection[str]) -> tuple[Case, ...]:
        """The cases, each of feedback principles that are known."""
        found = self.entries(top, "cases", Case)
        for i, case in enumerate(found):
            unknown = [id_ for id_ in case.principles if id_ not in known]
            if unknown:
                short = [id_[:NAME] for id_ in known]  # the time of difflib is a power of theirs
                near = difflib.get_close_matches(unknown[0][:NAME], short, 1, cutoff=0)[0]
                problem = f"has {unknown[0]!r}, no feedback principle; the nearest is {near!r}"
                self.fail_at(case.id, "principles", f"cases[{i}].principles {problem}")
            if seen(case.better) == seen(case.worse):
                problem = f"cases[{i}].worse is the better reply; write one that is worse"
                self.fail_at(case.id, "worse", problem)
        return found

    def entries(
        self,
        parent: dict[str, yaml.Node],
        field: str,
        kind: type[_Entry],
        without: Set[str] = frozenset(),
    ) -> tuple[_Entry, ...]:
        """The entries of a list; ``without`` are fields of ``kind`` that may not be given."""
        if field not in parent:
            return ()
        node = parent[field]
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.fail(node, field, "must be a list with at least one entry")
        return tuple(
            self.entry(item, f"{field}[{i}]", kind, without) for i, item in enumerate(node.value)
        )

    def entry(self, node: yaml.Node, where: str, kind: type[_Entry], without: Set[str]) -> _Entry:
        names = {f.name for f in fields(kind)} - without
        found = self.mapping(node, where, names - {"weight"}, names & {"weight"})
        readers: dict[str, Callable[[yaml.Node, str], Any]]
        readers = {
            **{"id": self.id, "tags": self.texts, "weight": self.weight, "author": self.author},
            **{"principles": self.texts, "dialogue": self.turns},
        }
        values: dict[str, Any] = {
            name: readers.get(name, self.text)(value, f"{where}.{name}")
            for name, value in found.items()
        }
        self.unique(values["id"], found["id"], f"{where}.id", node.start_mark.line + 1)
        self.lines |= {(values["id"], name): v.start_mark.line + 1 for name, v in found.items()}
        if values.get("answer", "A") not in ("A", "B"):
            self.fail(found["answer"], f"{where}.answer", "must be A or B")
        if "option_a" in values and seen(values["option_a"]) == seen(values["option_b"]):
            problem = "is option_a, so that no answer is right; write another reply"
            self.fail(found["option_b"], f"{where}.option_b", problem)
        return kind(**values)

    def unique(self, id_: str, node: yaml.Node, where: str, line: int) -> None:
        name = seen(id_)
        if name in self.ids:
            self.fail(node, where, f"{id_!r} is taken by line {self.ids[name]}; choose another")
        self.ids[name] = line

    def mapping(
        self, node: yaml.Node | None, where: str, required: set[str], optional: set[str]
    ) -> dict[str, yaml.Node]:
        if not isinstance(node, yaml.MappingNode):
            self.fail(node, where, "must be a mapping of fields")
        found: dict[str, yaml.Node] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.fail(key, where, "has a key that is not a text; quote it")
            if problem := odd_letter(key.value):
                self.fail(key, f"{where}: a field's name", problem)
            if key.value in found:
                self.fail(key, f"{where}: {key.value}", "appears twice; keep one")
            if key.value not in required | optional:
                known = ", ".join(sorted(required | optional))
                self.fail(key, f"{where}: {key.value}", f"is not a field here; known: {known}")
            found[key.value] = value
        missing = sorted(required - set(found))
        if missing:
            self.fail(node, where, f"lacks {missing[0]!r}; add it")
        return found

    def text(self, node: yaml.Node, where: str) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null":
            self.fail(node, where, "must be a text")
        if not seen(node.value).strip():
            self.fail(node, where, "is empty; write a text")
        if problem := odd_letter(node.value):
            self.fail(node, where, problem)
        return node.value.strip()

    def id(self, node: yaml.Node, where: str) -> str:
        """One that people can tell from the others, and that a file or a table may have in it."""
        found = self.text(node, where)
        if problem := odd_name(node.value):
            self.fail(node, where, problem)
        return found

    def texts(self, node: yaml.Node, where: str) -> tuple[str, ...]:
        if not isinstance(node, yaml.SequenceNode) or not node.value:
            self.fail(node, where, "must be a list with at least one text")
        return tuple(self.text(item, f"{where}[{i}]") for i, item in enumerate(node.value))

    def turns(self, node: yaml.Node, where: str) -> tuple[str, ...]:
        """A user's turn, or a list of turns that the user begins and ends."""
        if not isinstance(node, yaml.SequenceNode):
            return (self.text(node, where),)
        found = self.texts(node, where)
        if len(found) % 2 == 0:
            self.fail(node, where, "ends with the assistant; end it with what the user says")
        return found

    def author(self, node: yaml.Node, where: str) -> str | tuple[str, ...]:
        """One alone is a text however it is written, so that the hash is the same."""
        if not isinstance(node, yaml.SequenceNode):
            return self.text(node, where)
        found = self.texts(node, where)
        return found if len(found) > 1 else found[0]

    def weight(self, node: yaml.Node, where: str) -> float:
        low, high = WEIGHTS
        try:
            found = float(node.value)
        except (TypeError, ValueError):
            found = math.nan
        if not low <= found <= high:
            self.fail(node, where, f"must be a number from {low:g} to {high:g}, such as 0.5 or 2")
        return found

    def fail(self, node: yaml.Node | None, where: str, problem: str) -> NoReturn:
        line = node.start_mark.line + 1 if node is not None else None
        raise ConstitutionError(f"{where} {problem}", self.path, line)

    def fail_at(self, id_: str, field: str, problem: str) -> NoReturn:
        raise ConstitutionError(problem, self.path, self.lines[id_, field])
