"""Joins constitutions: equal wordings with all their authors, conflicts listed, by votes if any.

python -m cai_jax.constitution merge A.yaml B.yaml ... --out=MERGED.yaml [--votes=votes.csv]

The order of the files changes nothing. Beside MERGED.yaml stands MERGED.md, the report: what was
joined and renamed, what contradicts what or is alike, and how each vote went. Contradictions, and
what is alike but not equal in wording, are for people to settle; both sides stay. Once they have
read what is alike, --join_alike joins it. Files that are there already are replaced only with
--overwrite.

A CSV file of votes has the columns participant, statement (an id or a text of a principle) and vote
(agree, disagree or pass). Principles are chosen that every group of those who vote alike agrees to.
"""

from pathlib import Path

from absl import flags

from cai_jax.commands.files import write_whole
from cai_jax.commands.front import start
from cai_jax.commands.workshop.made import made_file
from cai_jax.config import naming
from cai_jax.constitution.merge import (
    PRINCIPLES,
    Merge,
    Source,
    merge,
    merged_constitution,
    statements,
)
from cai_jax.constitution.merge_report import Poll, report
from cai_jax.constitution.schema import Constitution, load_constitution
from cai_jax.constitution.votes import LEAST, count_votes, decide, opinion_groups, read_votes
from cai_jax.constitution.write import to_yaml
from cai_jax.storage.files import resolved

OUT = flags.DEFINE_string("out", None, "YAML file to write; its name is the name", required=True)
OVERWRITE = flags.DEFINE_bool("overwrite", False, "replace what --out names, edited or not")
VOTES = flags.DEFINE_string("votes", None, "CSV file: participant, statement, vote")
WEIGHTS = flags.DEFINE_list(
    "weights", [], "numbers, one a file, by which the weights of its principles are multiplied"
)
AGREEMENT = flags.DEFINE_float(
    "agreement", LEAST, "with --votes: least share of every group that agrees", 0.0, 1.0
)
JOIN_ALIKE = flags.DEFINE_bool(
    "join_alike", False, "joins what the report lists as alike: read it before"
)


def main(paths: list[Path]) -> None:
    """Merges the files, and says what people have to look at."""
    if not paths:
        raise ValueError("no files to merge; name constitutions, as A.yaml B.yaml")
    votes = resolved(VOTES.value) if VOTES.value else None
    _check_agreement()
    with naming("--weights"):
        weights = _weights(len(paths))
    read = [*paths, *([votes] if votes else [])]
    out = made_file(OUT.value, OVERWRITE.value, read, ".md")
    loaded = map(load_constitution, paths)
    found = merge(
        [Source(*each) for each in zip(loaded, weights, paths, strict=True)], JOIN_ALIKE.value
    )
    poll = _poll(found, votes) if votes else None
    result = merged_constitution(found, out.stem, poll.decisions if poll else None, votes)
    write_whole(out, to_yaml(result))
    write_whole(out.with_suffix(".md"), report(found, result, poll))
    _say(out, found, result, poll)


def _check_agreement() -> None:
    """Refuses a share that nothing follows from, or that nothing can reach.

    Raises:
      ValueError: --agreement is one.
    """
    if flags.FLAGS["agreement"].present and not VOTES.value:
        raise ValueError("--agreement: of which votes? name their file in --votes")
    if AGREEMENT.value == 1:
        raise ValueError(
            "--agreement: 1 is out of reach, since one vote for and one against are added to those "
            "of every group; choose a share below it"
        )


def _weights(count: int) -> list[float]:
    """One of every file.

    Raises:
      ValueError: they are as many as no file is, or not all above 0.
    """
    given = WEIGHTS.value or ["1"] * count
    try:
        weights = [float(weight) for weight in given]
    except ValueError as error:
        raise ValueError(f"{error}; give numbers, such as 2,1") from error
    if len(weights) != count or not all(0 < weight < float("inf") for weight in weights):
        raise ValueError(f"{','.join(given)} for {count} files; give a number above 0 for each")
    return weights


def _poll(found: Merge, path: Path) -> Poll:
    ballot = count_votes(read_votes(path), statements(found))
    groups = opinion_groups(ballot.values)
    ids = [joined.id for joined in found.of(*PRINCIPLES)]
    return Poll(ballot, groups, decide(ballot, groups, ids, AGREEMENT.value))


def _say(out: Path, found: Merge, result: Constitution, poll: Poll | None) -> None:
    joined = sum(len(entry.members) > 1 for entry in found.entries)
    which = "equal or alike wordings" if found.join_alike else "equal wordings"
    kept = sum(len(getattr(result, part)) for part in PRINCIPLES)
    print(f"{out}: {kept} principles, {joined} of the entries joined of {which}")
    if poll:
        number = int(poll.groups.max()) + 1
        left = sum(not decision.chosen for decision in poll.decisions.values())
        print(f"votes: {len(poll.groups)} participants in {number} groups; {left} principles out")
    for conflict in found.conflicts:
        print(f"conflict, for people to decide: {' and '.join(conflict.ids)}: {conflict.why}")
    for pair in found.alike:
        print(f"alike, not joined, for people to decide: {' and '.join(pair.ids)}")
    print(f"{out.with_suffix('.md')}: the report")


if __name__ == "__main__":
    start(main, files=True)
