"""Pairs of entries that are alike, or that ask for opposite things, by their wording.

Lint and merge go by them alike: lint names both kinds, merge lists both for people. Neither joins
anything by them, for what is alike in most words may ask for opposite things in the last one. What
is seen to contradict is not called alike.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from itertools import combinations, product

from cai_jax.constitution.schema import (
    ChoiceExample,
    Constitution,
    CritiqueExample,
    CritiquePrinciple,
    FeedbackPrinciple,
)
from cai_jax.constitution.wording import Comparison, compare, form_of, wording

Entry = CritiquePrinciple | FeedbackPrinciple | CritiqueExample | ChoiceExample
ASKED_FOR, OPPOSITE = "what it asks for", "its opposite"  # a text and its contrary in one entry


@dataclass(frozen=True)
class Pair:
    """Two entries of a constitution, and the fields whose texts are near each other."""

    one: Entry
    field: str
    other: Entry
    other_field: str
    opposed: frozenset[str] = frozenset()  # meanings that both have, with signs that differ

    @property
    def ids(self) -> frozenset[str]:
        """Of both entries."""
        return frozenset((self.one.id, self.other.id))


@lru_cache(1)
def contradictions(c: Constitution) -> tuple[Pair, ...]:
    """Principles that ask for opposite things, few-shots with the other answer; each pair once."""
    return _each_once(
        *_opposite(c.critique_revision, "revision_request"),
        *_turned(c.feedback),
        *_opposite(c.feedback, "question"),
        *_opposite(c.feedback, "principle"),
        *_across(c.critique_revision, c.feedback),
        *_answered_otherwise((*c.choice_examples, *c.thought_examples)),
    )


def near_duplicates(c: Constitution) -> tuple[Pair, ...]:
    """Principles, and few-shots, that say the same in other words; each pair once."""
    contrary = {pair.ids for pair in contradictions(c)}
    found = _each_once(
        *_same(c.critique_revision, "critique_request"),
        # The critique says what is revised; alone, a revision request must say much to be the same.
        *_same(c.critique_revision, "revision_request", least=3),
        *_same(c.feedback, "question"),
        *_same(c.feedback, "principle"),
        *_same(c.critique_examples, "prompt"),
        *_same((*c.choice_examples, *c.thought_examples), "prompt"),
    )
    return tuple(pair for pair in found if pair.ids not in contrary)


def texts_of(entry: Entry) -> dict[str, str]:
    """What models read of an entry, by field; options are named by the answer, not by letters."""
    about = {"id", "author", "tags", "weight", "option_a", "option_b", "answer"}
    texts = {f.name: getattr(entry, f.name) for f in fields(entry) if f.name not in about}
    if isinstance(entry, FeedbackPrinciple):
        texts[ASKED_FOR], texts[OPPOSITE] = texts.pop("principle"), texts.pop("opposite")
    if isinstance(entry, ChoiceExample):
        options = [entry.option_a, entry.option_b]
        texts[ASKED_FOR], texts[OPPOSITE] = options if entry.answer == "A" else options[::-1]
    return texts


def _each_once(*pairs: Pair) -> tuple[Pair, ...]:
    """The first pair of any two entries."""
    found: dict[frozenset[str], Pair] = {}
    for pair in pairs:
        found.setdefault(pair.ids, pair)
    return tuple(found.values())


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
        found = compare(read[i], read[j], form)
        yield Pair(entries[i], field, entries[j], field, found.opposed), found


def _turned(principles: Sequence[FeedbackPrinciple]) -> Iterator[Pair]:
    """Principles that say what another's opposite says, and that more than what it says itself."""
    wanted = [wording(p.principle) for p in principles]
    unwanted = [wording(p.opposite) for p in principles]
    form = form_of(wanted) & form_of(unwanted)
    for i, j in combinations(range(len(principles)), 2):
        straight = compare(wanted[i], wanted[j], form)
        for one, other in ((i, j), (j, i)):
            crossed = compare(wanted[one], unwanted[other], form)
            if crossed.same and not (straight.same and straight.alike >= crossed.alike):
                yield Pair(principles[one], "principle", principles[other], "opposite")


def _across(
    critiques: Sequence[CritiquePrinciple], feedback: Sequence[FeedbackPrinciple]
) -> Iterator[Pair]:
    """Revisions that go against what the feedback prefers."""
    asked = [wording(p.revision_request) for p in critiques]
    preferred = [wording(p.question) for p in feedback]
    form = form_of(asked) & form_of(preferred)
    for i, j in product(range(len(asked)), range(len(preferred))):
        found = compare(asked[i], preferred[j], form)
        if found.opposite:
            one, other = critiques[i], feedback[j]
            yield Pair(one, "revision_request", other, "question", found.opposed)


def _answered_otherwise(examples: Iterable[ChoiceExample]) -> Iterator[Pair]:
    """Few-shots with one prompt, of which the one prefers what the other does not."""
    ordered = {e.id: (e.option_a, e.option_b)[:: 1 if e.answer == "A" else -1] for e in examples}
    for pair, found in _compared(tuple(examples), "prompt"):
        (good, bad), (other_good, other_bad) = ordered[pair.one.id], ordered[pair.other.id]
        if found.same and _alike(good, other_bad) and _alike(bad, other_good):
            yield Pair(pair.one, "answer", pair.other, "answer")


def _alike(one: str, other: str) -> bool:
    return compare(wording(one), wording(other)).same
