"""What differs between two constitutions, by text: entries, words, weights, order."""

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import takewhile
from typing import Any, Literal

from cai_jax.constitution.schema import ABOUT, Constitution
from cai_jax.constitution.write import FEW_SHOTS

ALIKE = "nothing that a model reads differs"
PARTS = {"critique_revision": "critique_revision", "feedback": "feedback"} | {
    field: f"few_shots.{kind}" for kind, field in FEW_SHOTS.items()
}
PARTS["cases"] = "cases"
UNREAD = ("about", "cases")  # by models
# What difflib compares in a second: words, and pairs of equal ones. Its time is a power of theirs.
MOST_WORDS, MOST_PAIRS = 3000, 50_000


@dataclass(frozen=True)
class Difference:
    """One entry that only one constitution has, or that they have with other fields.

    Attributes:
      part: of the file, such as ``feedback``.
      kind: what became of it from the old constitution to the new one.
      id: of the entry; the old one where it was renamed.
      texts: by field; of what was changed with both readings, see ``word_changes``.
    """

    part: str
    kind: Literal["added", "removed", "changed"]
    id: str
    texts: dict[str, str]


def differences(old: Constitution, new: Constitution) -> list[Difference]:
    """Everything that makes the hashes of two constitutions differ, and their cases."""
    about = _changes(_about(old), _about(new))
    found = [Difference("about", "changed", new.name, about)] if about else []
    for part, name in PARTS.items():
        found += _of_part(name, getattr(old, part), getattr(new, part))
    return found


def as_text(found: Sequence[Difference]) -> str:
    """The differences as lines: + is added, - removed, ~ changed (see ``word_changes``)."""
    lines = [] if any(difference.part not in UNREAD for difference in found) else [ALIKE]
    part = ""
    for difference in found:
        if difference.part != part:
            part = difference.part
            lines.append(part)
        lines.append(f"  {_SIGNS[difference.kind]} {difference.id}")
        lines += [f"      {field}: {text}" for field, text in difference.texts.items()]
    return "\n".join(lines)


_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def word_changes(old: str, new: str) -> str:
    """The new text with its new words as {+word+}, and the old ones it lost as [-word-].

    Of texts that are too long, or repeat their words too often, all that stands between the first
    difference and the last counts as changed.
    """
    before, after = old.split(), new.split()
    words: list[str] = []
    for kind, i, j, k, n in _operations(before, after):
        if kind == "equal":
            words += after[k:n]
        else:
            words += [f"[-{' '.join(before[i:j])}-]"] if i < j else []
            words += [f"{{+{' '.join(after[k:n])}+}}"] if k < n else []
    return " ".join(words)


def _operations(before: list[str], after: list[str]) -> Sequence[tuple[str, int, int, int, int]]:
    """What makes one list of words the other, as difflib's opcodes."""
    counts = Counter(after)
    pairs = sum(counts[word] for word in before)
    if len(before) <= MOST_WORDS and pairs <= MOST_PAIRS:
        return difflib.SequenceMatcher(None, before, after, False).get_opcodes()
    begin = _equal(before, after)
    end = _equal(before[begin:][::-1], after[begin:][::-1])
    i, k = len(before) - end, len(after) - end
    kept = ("equal", i, len(before), k, len(after))
    return [("equal", 0, begin, 0, begin), ("replace", begin, i, begin, k), kept]


def _equal(words: list[str], others: list[str]) -> int:
    """How many words two lists begin with alike."""
    pairs = zip(words, others, strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _of_part(name: str, old: Sequence[Any], new: Sequence[Any]) -> Iterator[Difference]:
    before, after = ({entry.id: entry for entry in entries} for entries in (old, new))
    renamed = _renamed(before, after)
    for id_, entry in before.items():
        if id_ not in after and id_ not in renamed:
            yield Difference(name, "removed", id_, _fields(entry))
    for id_, entry in after.items():
        if id_ not in before and id_ not in renamed.values():
            yield Difference(name, "added", id_, _fields(entry))
    kept = {id_: renamed.get(id_, id_) for id_ in before if renamed.get(id_, id_) in after}
    for id_, now in kept.items():
        if changes := _changes(asdict(before[id_]), asdict(after[now])):
            yield Difference(name, "changed", id_, changes)
    order = [id_ for id_ in after if id_ in kept.values()]
    if order != list(kept.values()):
        changes = {"order": word_changes(", ".join(kept.values()), ", ".join(order))}
        yield Difference(name, "changed", "order", changes)


def _renamed(before: dict[str, Any], after: dict[str, Any]) -> dict[str, str]:
    """Old ids and new ones of entries that have nothing but another id."""
    gone = {replace(entry, id=""): id_ for id_, entry in before.items() if id_ not in after}
    come = {replace(entry, id=""): id_ for id_, entry in after.items() if id_ not in before}
    return {id_: come[entry] for entry, id_ in gone.items() if entry in come}


def _changes(old: dict[str, Any], new: dict[str, Any]) -> dict[str, str]:
    """Fields that differ, with both readings."""
    return {
        field: word_changes(_shown(old[field]), _shown(new[field]))
        for field in old
        if old[field] != new[field]
    }


def _fields(entry: Any) -> dict[str, str]:
    """What an entry says, without its id."""
    shown = {field: _shown(value) for field, value in asdict(entry).items() if field != "id"}
    return {field: text for field, text in shown.items() if text}


def _about(constitution: Constitution) -> dict[str, Any]:
    return {f.name: getattr(constitution, f.name) for f in fields(constitution) if f.name in ABOUT}


def _shown(value: Any) -> str:
    if isinstance(value, tuple):
        return ", ".join(value)
    return f"{value:g}" if isinstance(value, float) else value
