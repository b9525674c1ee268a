"""What a merge did and why, in Markdown, for the people whose texts and votes went into it."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from cai_jax.constitution.diff import word_changes
from cai_jax.constitution.merge import EXAMPLES, PARTS, PRINCIPLES, Member, Merge, orphans
from cai_jax.constitution.pairs import ASKED_FOR, Entry, texts_of
from cai_jax.constitution.schema import Constitution, authors_of
from cai_jax.constitution.votes import Ballot, Decision, Share
from cai_jax.markdown import code, one_line, table_row

GROUP_NAMES = "ABCDEF"


@dataclass(frozen=True)
class Poll:
    """Votes, who is in which group, and what was decided."""

    ballot: Ballot
    groups: np.ndarray  # of the participants
    decisions: Mapping[str, Decision]


def report(found: Merge, result: Constitution, poll: Poll | None = None) -> str:
    """The report of a merge.

    Args:
      found: what was joined, and what is in conflict.
      result: the merged constitution.
      poll: what it follows from, if anything was voted on.
    """
    left = {entry.id for part in PARTS for entry in getattr(result, part)}
    parts = [
        f"# How {one_line(result.name)} was merged\n",
        *_sources(found, result),
        *_conflicts(found, left),
        *_alike(found, left),
        *_joined(found),
        *_renamed(found),
        *(_votes(found, poll) if poll else ()),
        *_principles(found, result),
    ]
    return "\n".join(parts) + "\n"


def _sources(found: Merge, result: Constitution) -> Iterator[str]:
    yield "| constitution | version | authors | weight | principles | few-shots |"
    yield "| --- | --- | --- | ---: | ---: | ---: |"
    for source in found.sources:
        yield _about(source.constitution, f"{source.weight:g}")
    yield _about(result, "")


def _about(c: Constitution, weight: str) -> str:
    principles, shots = (sum(len(getattr(c, p)) for p in parts) for parts in (PRINCIPLES, EXAMPLES))
    return table_row(c.name, c.version, ", ".join(c.authors), weight, str(principles), str(shots))


def _conflicts(found: Merge, left: Collection[str]) -> Iterator[str]:
    yield f"\n## For people to decide: {_count(len(found.conflicts), 'conflict')}\n"
    yield (
        "Entries that contradict each other by their wording. None was settled here: both stay, "
        "unless votes left one out. Change or cut one of each two in the merged file."
        if found.conflicts
        else "No two entries of different files contradict each other by a word that is known to."
    )
    for number, conflict in enumerate(found.conflicts, 1):
        yield f"\n{number}. {conflict.why}"
        for id_, member in zip(conflict.ids, conflict.members, strict=True):
            yield _stays(id_, member, _text(member.entry), left)


def _alike(found: Merge, left: Collection[str]) -> Iterator[str]:
    yield f"\n## For people to decide: {_count(len(found.alike), 'pair')} alike, not joined\n"
    yield (
        "Entries that share most words of a text. They may say the same, or two things, or go "
        "against each other in the words that differ: only a reader can tell. Both stay, unless "
        "votes left one out. Give two that say the same one wording in their drafts, and merge "
        "again: then they are joined."
        if found.alike
        else "No other two entries of different files share most words of a text."
    )
    for number, pair in enumerate(found.alike, 1):
        yield f"\n{number}. in {' and '.join(dict.fromkeys(pair.fields))}"
        for id_, member, field in zip(pair.ids, pair.members, pair.fields, strict=True):
            yield _stays(id_, member, getattr(member.entry, field), left)


def _stays(id_: str, member: Member, text: str, left: Collection[str]) -> str:
    """One of two entries that people have to decide on; ``left`` are the ids of the result."""
    fate = "in" if id_ in left else "left out by votes"
    return f"    - {code(id_)} of {one_line(member.origin)}, {fate}: {one_line(text)}"


def _joined(found: Merge) -> Iterator[str]:
    joined = [entry for entry in found.entries if len(entry.members) > 1]
    which, apart = "Equal in wording", "in words such as articles, in number and in case at most"
    if found.join_alike:
        which, apart = "Equal in wording or alike", "in few words, as --join_alike allows"
    yield f"\n## {which}, joined: {len(joined)}\n"
    yield (
        f"They differ {apart}. The wording that is "
        "kept is the one with the largest weight, and of equals that of the first constitution by "
        "name; its weight is the sum of all. Beside it what the others say: {+words+} that they "
        "have instead of [-words-]."
        if joined
        else "No two entries have the same wording."
    )
    for entry in joined:
        kept, *others = entry.members
        yield f"\n- {code(entry.id)}, as {one_line(kept.origin)} has it"
        for member in others:
            before, after = texts_of(kept.entry), texts_of(member.entry)
            changed = {
                f: word_changes(before[f], after[f]) for f in before if before[f] != after[f]
            }
            same = "" if changed else ": word for word the same"
            yield f"    - {one_line(member.origin)}, {code(member.entry.id)}{same}"
            yield from (f"        - {f}: {one_line(words)}" for f, words in changed.items())


def _renamed(found: Merge) -> Iterator[str]:
    renamed = [entry for entry in found.entries if entry.id != entry.members[0].entry.id]
    if renamed:
        yield f"\n## Ids that several files gave to different things: {len(renamed)} renamed\n"
        yield "Each has the name of its constitution behind it.\n"
        yield from (
            f"- {code(entry.members[0].entry.id)} of {one_line(entry.members[0].origin)} is "
            f"{code(entry.id)}"
            for entry in renamed
        )


def _votes(found: Merge, poll: Poll) -> Iterator[str]:
    ballot, decisions = poll.ballot, poll.decisions
    sizes = np.bincount(poll.groups)
    cast = int(np.sum(~np.isnan(ballot.values)))
    names = GROUP_NAMES[: len(sizes)]
    least = next(iter(decisions.values())).least
    groups = ", ".join(f"{name} {size}" for name, size in zip(names, sizes, strict=True))
    yield "\n## Votes\n"
    yield (
        f"{len(ballot.participants)} participants cast {cast} votes on {len(ballot.statements)} "
        f"principles, {cast / ballot.values.size:.0%} of what they could have cast. They vote as "
        f"{_count(len(sizes), 'group')}: {groups}. Nobody told which group a participant is of; "
        "groups are those who vote alike."
    )
    if ballot.at_odds:
        yield (
            f"\n{_count(ballot.at_odds, 'vote')} on wordings that are joined, by a participant who "
            "voted differently on them, count as pass."
        )
    yield (
        f"\nA principle is in if at least {least:.0%} of every group agree, each share smoothed by "
        "one vote for and one against; pass is a vote and does not agree. The least of these "
        "shares is the agreement across groups, by which its weight is multiplied. Brackets are "
        "Wilson's intervals of 95 %.\n"
    )
    yield table_row("principle", "", "everyone", *names, "across", "why")
    yield table_row(*["---"] * (len(names) + 5))
    for joined in found.of(*PRINCIPLES):
        decision = decisions[joined.id]
        yield table_row(
            f"{code(joined.id)}: {_text(joined.entry)}",
            "in" if decision.chosen else "out",
            _share(decision.everyone),
            *map(_share, decision.groups),
            f"{decision.agreement:.2f}",
            _why(decision, names),
        )
    lost = orphans(found, {id_ for id_, decision in decisions.items() if not decision.chosen})
    if lost:
        ids = ", ".join(code(joined.id) for joined in lost)
        yield f"\nFew-shots that ask what only principles that are out ask are left out too: {ids}."


def _why(decision: Decision, names: str) -> str:
    """Why a principle is in or out, in a sentence."""
    if not decision.everyone.votes:
        return "nobody voted on it: kept, with half of its weight, until somebody does"
    share = decision.agreement
    last = names[[group.smoothed for group in decision.groups].index(share)]
    low, high = decision.groups[names.index(last)].interval
    close = ", but so few votes that it could be otherwise" if low < decision.least < high else ""
    if decision.chosen:
        agreed = "the group agrees" if len(names) == 1 else f"every group agrees, {last} least"
        return agreed + close
    if decision.everyone.smoothed >= decision.least:
        return f"most agree, but not in {last}{close}"
    return f"not enough agree, least in {last}{close}"


def _principles(found: Merge, result: Constitution) -> Iterator[str]:
    yield "\n## Who wrote what\n"
    yield table_row("principle", "authors", "from", "weight")
    yield "| --- | --- | --- | ---: |"
    entries = {joined.id: joined for joined in found.entries}
    for part in PRINCIPLES:
        for principle in getattr(result, part):
            origins = dict.fromkeys(member.origin for member in entries[principle.id].members)
            authors, weight = ", ".join(authors_of(principle)), f"{principle.weight:g}"
            yield table_row(code(principle.id), authors, ", ".join(origins), weight)


def _share(share: Share) -> str:
    if not share.votes:
        return "no votes"
    low, high = share.interval
    return (
        f"{share.agree} of {share.votes}: {share.agree / share.votes:.0%} [{low:.0%}, {high:.0%}]"
    )


def _text(entry: Entry) -> str:
    """What an entry asks for, in its own words."""
    texts = texts_of(entry)
    if "prompt" in texts:
        return texts["prompt"]
    return texts.get(ASKED_FOR) or f"{texts['critique_request']} {texts['revision_request']}"


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"
