"""Joins constitutions: near-duplicates with all their authors, conflicts listed and not settled.

Nothing depends on the order of the files: whatever has to have an order has that of the names of
the constitutions, and within one that of its file.

Which entries say the same and which contradict each other, pairs.py says, as it does for lint. What
contradicts is never joined: both stay, for people to decide.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from cai_jax.constitution.pairs import Entry, Pair, contradictions, near_duplicates
from cai_jax.constitution.schema import (
    WEIGHTS,
    Case,
    ChoiceExample,
    Constitution,
    ConstitutionError,
    CritiquePrinciple,
    FeedbackPrinciple,
    authors_of,
)
from cai_jax.constitution.votes import Decision, plain

PRINCIPLES = ("critique_revision", "feedback")  # fields of Constitution
EXAMPLES = ("critique_examples", "choice_examples", "thought_examples")
ASKED_FOR, OPPOSITE = "what it asks for", "its opposite"  # a text and its contrary in one entry

Principle = CritiquePrinciple | FeedbackPrinciple


@dataclass(frozen=True)
class Source:
    """A constitution that is merged, and by how much its principles' weights are multiplied."""

    constitution: Constitution
    weight: float = 1.0


@dataclass(frozen=True)
class Member:
    """An entry of one of the constitutions."""

    origin: str  # the constitution's name
    entry: Entry
    weight: float  # a principle's, times its file's; 1 of a few-shot


@dataclass(frozen=True)
class Joined:
    """An entry of the result: near-duplicates, first the one whose wording is kept."""

    id: str  # unique in the result
    part: str  # the field of Constitution
    members: tuple[Member, ...]

    @property
    def entry(self) -> Entry:
        """The wording of the first member, with the authors, tags and weights of all."""
        kept = self.members[0].entry
        if not isinstance(kept, Principle):
            return replace(kept, id=self.id)
        all_of = [m.entry for m in self.members if isinstance(m.entry, Principle)]
        authors = tuple(dict.fromkeys(name for p in all_of for name in authors_of(p)))
        return replace(
            kept,
            id=self.id,
            author=authors if len(authors) > 1 else authors[0],
            tags=tuple(dict.fromkeys(tag for p in all_of for tag in p.tags)),
            weight=sum(m.weight for m in self.members),
        )


@dataclass(frozen=True)
class Conflict:
    """Two entries that contradict each other by wording; both stay."""

    ids: tuple[str, str]  # in the result
    members: tuple[Member, Member]
    why: str


@dataclass(frozen=True)
class Merge:
    """What came of joining, before anything is voted on."""

    sources: tuple[Source, ...]  # by name
    entries: tuple[Joined, ...]
    conflicts: tuple[Conflict, ...]

    def of(self, *parts: str) -> tuple[Joined, ...]:
        """The entries of some fields of Constitution."""
        return tuple(joined for joined in self.entries if joined.part in parts)


def merge(sources: Sequence[Source]) -> Merge:
    """Joins near-duplicates, names every entry, and finds the conflicts.

    Raises:
      ConstitutionError: two constitutions have one name, by which their entries are told apart.
    """
    names = Counter(source.constitution.name for source in sources)
    if max(names.values()) > 1:
        taken = max(names, key=lambda name: names[name])
        raise ConstitutionError(
            f"two of the files have the name {taken!r}; give one another 'name', since renamed ids "
            "and the report tell them apart by it"
        )
    ordered = tuple(sorted(sources, key=lambda source: source.constitution.name))
    members = {
        f"{source.constitution.name}/{entry.id}": Member(
            source.constitution.name, entry, getattr(entry, "weight", 1.0) * source.weight
        )
        for source in ordered
        for part in (*PRINCIPLES, *EXAMPLES)
        for entry in getattr(source.constitution, part)
    }
    pooled = _pooled(ordered)
    same = {pair.ids for pair in near_duplicates(pooled)}
    clusters = [
        (part, [members[id_] for id_ in ids])
        for part in (*PRINCIPLES, *EXAMPLES)
        for ids in _groups([entry.id for entry in getattr(pooled, part)], same)
    ]
    entries = _named(clusters)
    by_member = {(m.origin, m.entry.id): joined.id for joined in entries for m in joined.members}
    conflicts: dict[tuple[str, str], Conflict] = {}  # of two entries the first
    for pair in contradictions(pooled):
        one, other = members[pair.one.id], members[pair.other.id]
        ids = (by_member[one.origin, one.entry.id], by_member[other.origin, other.entry.id])
        if one.origin != other.origin:
            conflicts.setdefault(ids, Conflict(ids, (one, other), _why(pair)))
    return Merge(ordered, entries, tuple(conflicts.values()))


def merged_constitution(
    found: Merge, name: str, decisions: Mapping[str, Decision] | None = None
) -> Constitution:
    """The constitution that a merge gives.

    Args:
      found: what is joined.
      name: of the result.
      decisions: of votes, by id: principles that are not chosen are left out, with the few-shots
        that ask what they alone asked; the others' weights are multiplied by their agreement.

    Raises:
      ConstitutionError: no principle of a kind is left, or a weight is out of bounds.
    """
    decided = decisions or {}
    out = {id_ for id_, decision in decided.items() if not decision.chosen}
    left_out = {*out, *(joined.id for joined in orphans(found, out))}
    kept: dict[str, list[Entry]] = {part: [] for part in (*PRINCIPLES, *EXAMPLES)}
    for joined in found.entries:
        if joined.id not in left_out:
            agreement = decided[joined.id].agreement if joined.id in decided else 1.0
            kept[joined.part].append(_weighted(joined, agreement))
    for part in PRINCIPLES:
        if not kept[part]:
            raise ConstitutionError(
                f"no principle of {part} has the agreement of every group; lower --agreement, or "
                "merge more files"
            )
    about = [source.constitution for source in found.sources]
    by_votes = ", as far as every group of the voters agrees" if decided else ""
    return Constitution(
        name=name,
        version="1.0",
        description=f"Merged from {', '.join(f'{c.name} {c.version}' for c in about)}{by_votes}.",
        authors=tuple(dict.fromkeys(author for c in about for author in c.authors)),
        cases=_cases(found, {p.id for p in kept["feedback"]}),
        **{part: tuple(entries) for part, entries in kept.items()},  # type: ignore[arg-type]
    )


def orphans(found: Merge, out: Collection[str]) -> list[Joined]:
    """Few-shots that ask what nobody but principles that are left out asks."""
    asked = {
        kept: {
            text
            for joined in found.of(*PRINCIPLES)
            if (joined.id not in out) == kept
            for member in joined.members
            for text in _requests(member.entry)
        }
        for kept in (True, False)
    }
    return [
        joined
        for joined in found.of(*EXAMPLES)
        if _requests(joined.members[0].entry) & (asked[False] - asked[True])
    ]


def statements(found: Merge) -> dict[str, set[str]]:
    """Ids of the principles that a voter may mean, by an id, or by a text made ``plain``."""
    meant: dict[str, set[str]] = {}
    for joined in found.of(*PRINCIPLES):
        named = {joined.id, *(member.entry.id for member in joined.members)}
        said = {
            plain(text)
            for member in joined.members
            for field, text in texts_of(member.entry).items()
            if field != OPPOSITE
        }
        for text in named | said:
            meant.setdefault(text, set()).add(joined.id)
    return meant


def texts_of(entry: Entry) -> dict[str, str]:
    """What models read of an entry, by field; that of a few-shot does not depend on its letters."""
    about = {"id", "author", "tags", "weight", "option_a", "option_b", "answer", "reasoning"}
    texts = {f.name: getattr(entry, f.name) for f in fields(entry) if f.name not in about}
    if isinstance(entry, FeedbackPrinciple):
        texts[ASKED_FOR], texts[OPPOSITE] = texts.pop("principle"), texts.pop("opposite")
    if isinstance(entry, ChoiceExample):
        options = [entry.option_a, entry.option_b]
        texts[ASKED_FOR], texts[OPPOSITE] = options if entry.answer == "A" else options[::-1]
    return texts


def _pooled(sources: Sequence[Source]) -> Constitution:
    """All entries as one constitution's, with ids that name their own."""
    parts: dict[str, Any] = {
        part: tuple(
            replace(entry, id=f"{source.constitution.name}/{entry.id}")
            for source in sources
            for entry in getattr(source.constitution, part)
        )
        for part in (*PRINCIPLES, *EXAMPLES)
    }
    return replace(sources[0].constitution, **parts)


def _groups(ids: Sequence[str], same: Collection[frozenset[str]]) -> list[list[str]]:
    """Groups in which each says the same as each, not by a chain; an id is in the first it can."""
    groups: list[list[str]] = []
    for id_ in ids:
        fits = (g for g in groups if all(frozenset((id_, other)) in same for other in g))
        found = next(fits, None)
        if found is None:
            groups.append([id_])
        else:
            found.append(id_)
    return groups


def _why(pair: Pair) -> str:
    """What two entries contradict each other in."""
    if pair.field == "answer":
        return "what the one prefers is what the other does not"
    if pair.other_field == "opposite":
        return "what the one asks for is near what the other opposes"
    of_both = dict.fromkeys((pair.field, pair.other_field))
    return f"{' against '.join(of_both)}: opposed in {', '.join(sorted(pair.opposed))}"


def _named(clusters: Iterable[tuple[str, list[Member]]]) -> tuple[Joined, ...]:
    """Entries with ids of their own: one that is another's too gets its constitution's name."""
    ordered = [(part, sorted(members, key=lambda m: -m.weight)) for part, members in clusters]
    holders = Counter(id_ for _, members in ordered for id_ in {m.entry.id for m in members})
    taken = set(holders)
    named = []
    for part, members in ordered:
        id_ = members[0].entry.id
        if holders[id_] > 1:
            id_ = _free(id_, members[0].origin, taken)
            taken.add(id_)
        named.append(Joined(id_, part, tuple(members)))
    return tuple(named)


def _cases(found: Merge, kept: Collection[str]) -> tuple[Case, ...]:
    """Cases of the principles that are kept, under their ids; equal ones of two files are one."""
    names = {
        (m.origin, m.entry.id): joined.id for joined in found.of("feedback") for m in joined.members
    }
    taken = {joined.id for joined in found.entries}
    merged: dict[tuple[object, ...], Case] = {}
    for source in found.sources:
        origin = source.constitution.name
        for case in source.constitution.cases:
            ids = [names[origin, id_] for id_ in case.principles if names[origin, id_] in kept]
            content = (case.dialogue, case.better, case.worse)
            if content in merged:
                ids = [*merged[content].principles, *ids]
            elif ids:
                merged[content] = replace(case, id=_free(case.id, origin, taken))
                taken.add(merged[content].id)
            if ids:
                unique = tuple(dict.fromkeys(ids))
                merged[content] = replace(merged[content], principles=unique)
    return tuple(merged.values())


def _free(id_: str, origin: str, taken: Collection[str]) -> str:
    """The id, with its constitution's name where it is taken."""
    if id_ in taken:
        id_ = f"{id_}-{origin}"
    while id_ in taken:
        id_ += "-2"
    return id_


def _requests(entry: Entry) -> set[str]:
    """What an entry has a model asked."""
    return {getattr(entry, f) for f in ("critique_request", "question") if hasattr(entry, f)}


def _weighted(joined: Joined, agreement: float) -> Entry:
    """The entry as it stands in the result; weights have four digits, for people to read."""
    entry = joined.entry
    if not isinstance(entry, Principle):
        return entry
    weight, (low, high) = float(f"{entry.weight * agreement:.4g}"), WEIGHTS
    if not low <= weight <= high:
        raise ConstitutionError(
            f"{joined.id} would have the weight {weight:g}, which is not from {low:g} to {high:g}; "
            "choose other --weights"
        )
    return replace(entry, weight=weight)
