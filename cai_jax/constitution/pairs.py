"""Pairs of principles that say the same, or that ask for opposite things, by their wording."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations, product

from cai_jax.constitution.schema import (
    ChoiceExample,
    Constitution,
    CritiqueExample,
    CritiquePrinciple,
    FeedbackPrinciple,
)
from cai_jax.constitution.wording import Comparison, compare, form_of, wording

Entry = CritiquePrinciple | FeedbackPrinciple | CritiqueExample | ChoiceExample


@dataclass(frozen=True)
class Pair:
    """Two entries of a constitution, and the fields whose texts are near each other."""

    one: Entry
    field: str
    other: Entry
    other_field: str


def near_duplicates(c: Constitution) -> list[Pair]:
    """Principles, and few-shots, that say the same in other words; each pair once."""
    shots = (*c.choice_examples, *c.thought_examples)
    return _each_once(
        *_same(c.critique_revision, "critique_request"),
        # The critique says what is revised; alone, a revision request must say much to be the same.
        *_same(c.critique_revision, "revision_request", least=3),
        *_same(c.feedback, "question"),
        *_same(c.feedback, "principle"),
        *_same(c.critique_examples, "prompt"),
        *_same(shots, "prompt"),
    )


def contradictions(c: Constitution) -> list[Pair]:
    """Principles that ask for opposite things; each pair once."""
    return _each_once(
        *_opposite(c.critique_revision, "revision_request"),
        *_opposite(c.feedback, "question"),
        *_opposite(c.feedback, "principle"),
        *_turned(c.feedback),
        *_across(c.critique_revision, c.feedback),
    )


def _each_once(*pairs: Pair) -> list[Pair]:
    """The first pair of any two entries."""
    found: dict[frozenset[str], Pair] = {}
    for pair in pairs:
        found.setdefault(frozenset((pair.one.id, pair.other.id)), pair)
    return list(found.values())


def _same(entries: Sequence[Entry], field: str, least: int = 1) -> Iterator[Pair]:
    """Entries whose texts are the same, in ``least`` meanings or more."""
    for pair, found in _compared(entries, field):
        if found.same and len(found.shared) >= least:
            yield pair


def _opposite(entries: Sequence[Entry], field: str) -> Iterator[Pair]:
    return (pair for pair, found in _compared(entries, field) if found.opposite)


def _compared(entries: Sequence[Entry], field: str) -> Iterator[tuple[Pair, Comparison]]:
    read = [wording(getattr(entry, field)) for entry in entries]
    form = form_of(read)
    for i, j in combinations(range(len(entries)), 2):
        yield Pair(entries[i], field, entries[j], field), compare(read[i], read[j], form)


def _turned(principles: Sequence[FeedbackPrinciple]) -> Iterator[Pair]:
    """Principles that say what another's opposite says, and not what its principle says too."""
    wanted = [wording(p.principle) for p in principles]
    unwanted = [wording(p.opposite) for p in principles]
    form = form_of(wanted) & form_of(unwanted)
    for i, j in permutations(range(len(principles)), 2):
        if (
            compare(wanted[i], unwanted[j], form).same
            and not compare(wanted[i], wanted[j], form).same
        ):
            yield Pair(principles[i], "principle", principles[j], "opposite")


def _across(
    critiques: Sequence[CritiquePrinciple], feedback: Sequence[FeedbackPrinciple]
) -> Iterator[Pair]:
    """Revisions that go against what the feedback prefers."""
    asked = [wording(p.revision_request) for p in critiques]
    preferred = [wording(p.question) for p in feedback]
    form = form_of(asked) & form_of(preferred)
    for i, j in product(range(len(asked)), range(len(preferred))):
        if compare(asked[i], preferred[j], form).opposite:
            yield Pair(critiques[i], "revision_request", feedback[j], "question")
