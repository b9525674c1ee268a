"""Joins constitutions: what is equal in wording with all its authors, the rest left to people.

Nothing depends on the order of the files: whatever has to have an order has that of the names of
the constitutions, and within one that of its file.

Only entries that are equal in wording are joined, as same.py tells it: nothing is lost by that, and
no conflict is settled. What pairs.py finds contrary, or alike in most of its words, is listed and
stays as it is. A conflict that no word shows is not listed, but not joined either. Who has read the
list may have what is alike joined, too.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import floor
from pathlib import Path
from typing import Any

from cai_jax.constitution.pairs import (
    OPPOSITE,
    Entry,
    Pair,
    contradictions,
    near_duplicates,
    texts_of,
)
from cai_jax.constitution.same import folded, same_words
from cai_jax.constitution.schema import (
    WEIGHTS,
    Case,
    Constitution,
    ConstitutionError,
    CritiquePrinciple,
    FeedbackPrinciple,
    authors_of,
)
from cai_jax.constitution.votes import Decision, Meant, plain

PRINCIPLES = ("critique_revision", "feedback")  # fields of Constitution
EXAMPLES = ("critique_examples", "choice_examples", "thought_examples")
PARTS = (*PRINCIPLES, *EXAMPLES)

Principle = CritiquePrinciple | FeedbackPrinciple


@dataclass(frozen=True)
class Source:
    """A constitution that is merged, and by how much its principles' weights are multiplied.

    Attributes:
      constitution: that is merged.
      weight: by which those of its principles are multiplied.
      path: of its file, for errors; None if it has none.
    """

    constitution: Constitution
    weight: float = 1.0
    path: Path | None = None


@dataclass(frozen=True)
class Member:
    """An entry of one of the constitutions."""

    origin: str  # the constitution's name
    part: str  # the field of Constitution
    entry: Entry
    weight: float  # a principle's, times its file's; 1 of a few-shot

    @property
    def name(self) -> tuple[str, str]:
        """Of all entries of all files this one; joined to one text, two names could be equal."""
        return self.origin, self.entry.id


@dataclass(frozen=True)
class Joined:
    """An entry of the result: entries equal in wording, first the one whose wording is kept."""

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
class Alike:
    """Two entries that are alike in most words of a field; both stay, for people to look at."""

    ids: tuple[str, str]  # in the result
    members: tuple[Member, Member]
    fields: tuple[str, str]  # of each the one that is alike


@dataclass(frozen=True)
class Merge:
    """What came of joining, before anything is voted on."""

    sources: tuple[Source, ...]  # by name
    entries: tuple[Joined, ...]
    conflicts: tuple[Conflict, ...]
    alike: tuple[Alike, ...]
    join_alike: bool  # whether what is alike was joined as well

    def of(self, *parts: str) -> tuple[Joined, ...]:
        """The entries of some fields of Constitution."""
        return tuple(joined for joined in self.entries if joined.part in parts)


def merge(sources: Sequence[Source], join_alike: bool = False) -> Merge:
    """Joins what is equal in wording, names every entry, and finds what people have to look at.

    Args:
      sources: with names of their own.
      join_alike: joins what is alike as well, as somebody decides who has read the list.

    Raises:
      ConstitutionError: two constitutions have one name, by which their entries are told apart.
    """
    ordered = tuple(sorted(sources, key=lambda source: source.constitution.name))
    _check_names(ordered)
    members = {str(number): member for number, member in enumerate(_members(ordered))}
    pooled = _pooled(ordered[0].constitution, members)
    contrary = contradictions(pooled)
    apart = {pair.ids for pair in contrary}
    near = {pair.ids for pair in near_duplicates(pooled)} if join_alike else set()
    clusters = [
        (part, [members[id_] for id_ in ids])
        for part in PARTS
        for ids in _joined(_groups(getattr(pooled, part), apart), near)
    ]
    entries = _named(clusters)
    by_member = {member.name: joined.id for joined in entries for member in joined.members}
    conflicts: dict[frozenset[str], Conflict] = {}  # of two entries the first
    alike: dict[frozenset[str], Alike] = {}
    for pair in (*contrary, *near_duplicates(pooled)):
        both = members[pair.one.id], members[pair.other.id]
        ids = by_member[both[0].name], by_member[both[1].name]
        known, across = frozenset(ids), both[0].origin != both[1].origin
        if not across or len(known) == 1 or known in conflicts:
            continue
        if pair.ids in apart:
            conflicts[known] = Conflict(ids, both, _why(pair))
        elif both[0].part == both[1].part:
            alike.setdefault(known, Alike(ids, both, (pair.field, pair.other_field)))
    return Merge(ordered, entries, tuple(conflicts.values()), tuple(alike.values()), join_alike)


def _check_names(sources: Sequence[Source]) -> None:
    """Refuses two constitutions of one name."""
    seen: dict[str, Source] = {}
    for source in sources:
        name = source.constitution.name
        earlier = seen.setdefault(folded(name), source)
        if earlier is not source:
            raise ConstitutionError(
                f"{earlier.path or 'another one'} has the name {name!r}, too; give one another "
                "'name', since renamed ids and the report tell them apart by it",
                source.path,
            )


def _members(sources: Sequence[Source]) -> Iterator[Member]:
    """All entries of all constitutions."""
    for source in sources:
        for part in PARTS:
            for entry in getattr(source.constitution, part):
                weight = getattr(entry, "weight", 1.0) * source.weight
                yield Member(source.constitution.name, part, entry, weight)


def merged_constitution(
    found: Merge,
    name: str,
    decisions: Mapping[str, Decision] | None = None,
    votes: Path | None = None,
) -> Constitution:
    """The constitution that a merge gives.

    Args:
      found: what is joined.
      name: of the result.
      decisions: of votes, by id: principles that are not chosen are left out, with the few-shots
        that ask what they alone asked; the others' weights are multiplied by their agreement.
      votes: file that they follow from, for errors.

    Raises:
      ConstitutionError: no principle of a kind is left, or a weight is out of bounds.
    """
    decided = decisions or {}
    out = {id_ for id_, decision in decided.items() if not decision.chosen}
    left_out = {*out, *(joined.id for joined in orphans(found, out))}
    kept: dict[str, list[Entry]] = {part: [] for part in PARTS}
    for joined in found.entries:
        if joined.id not in left_out:
            agreement = decided[joined.id].agreement if joined.id in decided else 1.0
            kept[joined.part].append(_weighted(joined, agreement))
    for part in PRINCIPLES:
        if not kept[part]:
            best = max(decided[joined.id].agreement for joined in found.of(part))
            raise ConstitutionError(
                f"no principle of {part} has the agreement of every group; lower --agreement to "
                f"{floor(1000 * best) / 1000}, which the best of them has, or merge more files",
                votes,
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


def statements(found: Merge) -> dict[str, set[Meant]]:
    """What a voter may mean, by a ``folded`` id of a draft or the result, or a ``plain`` text."""
    meant: dict[str, set[Meant]] = {}
    for joined in found.of(*PRINCIPLES):
        for member in joined.members:
            of_files = {folded(m.entry.id) for m in joined.members}
            # The id of the result means all that was joined, unless it is one of theirs.
            named = {folded(member.entry.id), *({folded(joined.id)} - of_files)}
            said = {plain(t) for field, t in texts_of(member.entry).items() if field != OPPOSITE}
            for text in named | said:
                meant.setdefault(text, set()).add(Meant(joined.id, member.name))
    return meant


def _pooled(about: Constitution, members: Mapping[str, Member]) -> Constitution:
    """All entries as one constitution's, under the ids that the mapping has them by."""
    parts: dict[str, Any] = {
        part: tuple(replace(m.entry, id=id_) for id_, m in members.items() if m.part == part)
        for part in PARTS
    }
    return replace(about, **parts)


def _groups(entries: Sequence[Entry], apart: Collection[frozenset[str]]) -> list[list[str]]:
    """Ids of entries that are equal in wording, together, but for pairs that are to stay apart."""
    groups: dict[object, list[list[str]]] = {}
    for entry in entries:
        said = tuple((field, same_words(text)) for field, text in texts_of(entry).items())
        equal = groups.setdefault(said, [])
        fits = (g for g in equal if all(frozenset((entry.id, id_)) not in apart for id_ in g))
        found = next(fits, None)
        if found is None:
            equal.append([entry.id])
        else:
            found.append(entry.id)
    return [ids for equal in groups.values() for ids in equal]


def _joined(groups: list[list[str]], near: Collection[frozenset[str]]) -> list[list[str]]:
    """Groups of ids, those together of which each is near each of the other."""
    found: list[list[str]] = []
    for ids in groups:
        fits = (g for g in found if all(frozenset(pair) in near for pair in product(g, ids)))
        if (other := next(fits, None)) is None:
            found.append(list(ids))
        else:
            other += ids
    return found


def _why(pair: Pair) -> str:
    """What two entries contradict each other in."""
    if pair.field == "answer":
        return "what the one prefers is what the other does not"
    if pair.other_field == "opposite":
        return "what the one asks for is near what the other opposes"
    of_both = dict.fromkeys((pair.field, pair.other_field))
    return f"{' against '.join(of_both)}: opposed in {', '.join(sorted(pair.opposed))}"


def _named(clusters: Iterable[tuple[str, list[Member]]]) -> tuple[Joined, ...]:
    """Entries with ids of their own: one that looks like another's gets its constitution's name."""
    ordered = [(part, sorted(members, key=lambda m: -m.weight)) for part, members in clusters]
    holders = Counter(id_ for _, found in ordered for id_ in {folded(m.entry.id) for m in found})
    taken = set(holders)
    named = []
    for part, members in ordered:
        id_ = members[0].entry.id
        if holders[folded(id_)] > 1:
            id_ = _free(id_, members[0].origin, taken)
        named.append(Joined(id_, part, tuple(members)))
    return tuple(named)


def _cases(found: Merge, kept: Collection[str]) -> tuple[Case, ...]:
    """Cases of the principles that are kept, under their ids; equal ones of two files are one."""
    names = {m.name: joined.id for joined in found.of("feedback") for m in joined.members}
    taken = {folded(joined.id) for joined in found.entries}
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
            if ids:
                unique = tuple(dict.fromkeys(ids))
                merged[content] = replace(merged[content], principles=unique)
    return tuple(merged.values())


def _free(id_: str, origin: str, taken: set[str]) -> str:
    """The id, with its constitution's name where it is taken; from now on it is."""
    if folded(id_) in taken:
        id_ = f"{id_}-{origin}"
    while folded(id_) in taken:
        id_ += "-2"
    taken.add(folded(id_))
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
