"""Votes on statements: opinion groups, and what every one of them agrees to.

A majority of all can be one large group. So a statement is chosen if enough of every group agrees:
if the least of the groups' shares, smoothed by one vote for and one against, reaches a limit.

Groups are found by scikit-learn: missing votes are imputed by their statement's mean, PCA reduces
what is left, KMeans groups it, and naive Bayes moves people, who see few statements in common, to
the group whose votes theirs are likeliest among. As many groups are taken as have the lowest
Bayesian information criterion, in which a share counts as known from the votes cast on it.
"""

import csv
import difflib
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.stats import binomtest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.naive_bayes import MultinomialNB
from threadpoolctl import threadpool_limits

from cai_jax.constitution.same import folded
from cai_jax.constitution.schema import ConstitutionError
from cai_jax.reading import FileError, read_text

COLUMNS = ("participant", "statement", "vote")
VALUES = {"agree": 1.0, "pass": 0.5, "disagree": 0.0}
MOST_GROUPS, LEAST_PEOPLE = 6, 5  # of groups that are tried; on average in each
ROUNDS = 50  # in which people are moved, at most
LEAST = 0.5  # share of every group that a statement is chosen with


@dataclass(frozen=True)
class Vote:
    """A row of a file of votes."""

    participant: str
    statement: str  # an id or a text
    value: float  # of VALUES
    path: Path
    line: int

    def error(self, problem: str) -> ConstitutionError:
        """An error that names the row."""
        return ConstitutionError(f"{self.path}, line {self.line}: {problem}")


@dataclass(frozen=True)
class Meant:
    """A wording that a vote may be on, and the principle that it became a part of."""

    principle: str  # its id in the result
    wording: tuple[str, str]  # its constitution, and its id there


@dataclass(frozen=True)
class Ballot:
    """Votes as a matrix, its rows and columns in the order of their names.

    Attributes:
      participants: who voted.
      statements: ids of what they voted on.
      values: of VALUES, NaN where there is no vote, float [participants, statements].
      at_odds: votes that count as "pass", since a participant voted differently on wordings that
        are joined.
    """

    participants: tuple[str, ...]
    statements: tuple[str, ...]
    values: np.ndarray
    at_odds: int = 0


@dataclass(frozen=True)
class Share:
    """How many of those who voted on a statement agree."""

    agree: int
    votes: int

    @property
    def smoothed(self) -> float:
        """With one vote more for it and one against it: half where there are none."""
        return (self.agree + 1) / (self.votes + 2)

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's, of 95 %; anything where nobody voted."""
        if not self.votes:
            return 0.0, 1.0
        found = binomtest(self.agree, self.votes).proportion_ci(method="wilson")
        return float(found.low), float(found.high)


@dataclass(frozen=True)
class Decision:
    """Whether a statement is chosen, and by what."""

    chosen: bool
    everyone: Share
    groups: tuple[Share, ...]
    least: float  # that every group's smoothed share must reach

    @property
    def agreement(self) -> float:
        """Across groups: the least of their smoothed shares."""
        return min(share.smoothed for share in self.groups)


def read_votes(path: Path) -> list[Vote]:
    """Reads a CSV file with the columns participant, statement and vote.

    Raises:
      ConstitutionError: a row is not a vote; the message names file, line and remedy.
    """
    try:
        text = read_text(path)
    except FileError as error:
        raise ConstitutionError(error.problem, path, error.line) from error
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        numbered = [(reader.line_num, row) for row in reader if any(map(str.strip, row))]
    except csv.Error as error:
        raise ConstitutionError(
            f"{path}, line {reader.line_num}: not CSV ({error}); close every quotation mark"
        ) from error
    header = [name.strip().casefold() for name in numbered[0][1]] if numbered else []
    if sorted(header) != sorted(COLUMNS):
        raise ConstitutionError(
            f"{path}, line 1: the columns are {', '.join(header) or 'none'}; name them "
            f"{', '.join(COLUMNS)}, with commas between them"
        )
    if len(numbered) == 1:
        raise ConstitutionError(f"{path}: holds no votes; write one a line below the columns")
    return [_vote(path, line, row, header) for line, row in numbered[1:]]


def _vote(path: Path, line: int, row: Sequence[str], header: Sequence[str]) -> Vote:
    if len(row) != len(header):
        raise ConstitutionError(
            f"{path}, line {line}: has {len(row)} fields in place of {len(header)}; put a "
            "statement that has commas in it in quotation marks"
        )
    fields = {name: value.strip() for name, value in zip(header, row, strict=True)}
    for name in COLUMNS:
        if not fields[name]:
            raise ConstitutionError(f"{path}, line {line}: {name} is empty; fill it or cut the row")
    vote = fields["vote"].casefold()
    if vote not in VALUES:
        raise ConstitutionError(
            f"{path}, line {line}: the vote {fields['vote']!r} is none; write agree, disagree or "
            "pass"
        )
    return Vote(fields["participant"], fields["statement"], VALUES[vote], path, line)


def plain(text: str) -> str:
    """A text without case, spaces and punctuation; only stripped if nothing else is left of it."""
    return re.sub(r"[\W_]+", "", text.casefold()) or text.strip()


def count_votes(votes: Sequence[Vote], meant: Mapping[str, set[Meant]]) -> Ballot:
    """The matrix of votes.

    Args:
      votes: in any order.
      meant: what a statement may stand for, by a ``folded`` id or a ``plain`` text.

    Raises:
      ConstitutionError: a statement stands for nothing or for several things, or one participant
        votes twice on a wording, be it by its id or by its text.
    """
    seen: dict[tuple[str, tuple[str, str]], Vote] = {}
    found: dict[tuple[str, str], list[float]] = {}
    for vote in sorted(votes, key=lambda vote: vote.line):
        participant, principle = folded(vote.participant), ""
        for one in _meant(vote, meant):
            principle = one.principle
            earlier = seen.setdefault((participant, one.wording), vote)
            if earlier is not vote:
                raise vote.error(
                    f"{vote.participant} voted on {principle!r} on line {earlier.line}; keep one"
                )
        found.setdefault((participant, principle), []).append(vote.value)
    participants = sorted({participant for participant, _ in found})
    statements = sorted({statement for _, statement in found})
    row, column = ({name: i for i, name in enumerate(n)} for n in (participants, statements))
    values = np.full((len(row), len(column)), np.nan)
    for (participant, statement), given in found.items():
        agreed = len(set(given)) == 1
        values[row[participant], column[statement]] = given[0] if agreed else VALUES["pass"]
    at_odds = sum(len(set(given)) > 1 for given in found.values())
    return Ballot(tuple(participants), tuple(statements), values, at_odds)


def _meant(vote: Vote, meant: Mapping[str, set[Meant]]) -> set[Meant]:
    """Wordings of one principle."""
    found = meant.get(folded(vote.statement)) or meant.get(plain(vote.statement)) or set()
    ids = sorted({one.principle for one in found})
    if not ids:
        known = sorted({one.principle for any_of in meant.values() for one in any_of})
        (near,) = difflib.get_close_matches(vote.statement, known, 1, cutoff=0)
        raise vote.error(
            f"{vote.statement!r} is neither id nor text of a principle; the nearest is {near!r}"
        )
    if len(ids) > 1:
        raise vote.error(f"{vote.statement!r} may be any of {', '.join(ids)}; write one of them")
    return found


def opinion_groups(values: np.ndarray) -> np.ndarray:
    """The group of every participant, int [participants]; group 0 is the largest.

    Args:
      values: see ``Ballot``.
    """
    imputed = np.nan_to_num(values - np.nanmean(values, axis=0))
    different = len(np.unique(imputed, axis=0))
    most = max(1, min(MOST_GROUPS, len(values) // LEAST_PEOPLE, different))
    with threadpool_limits(1):  # so few numbers are slower, and no surer, on many threads
        tried = [_grouped(values, imputed, k) for k in range(1, most + 1)]
    best = min(tried, key=lambda groups: _bic(values, groups))
    firsts = np.unique(best, return_index=True)[1]
    order = np.lexsort((firsts, -np.bincount(best)))
    return np.argsort(order)[best]


def _grouped(values: np.ndarray, imputed: np.ndarray, k: int) -> np.ndarray:
    """People in at most k groups."""
    if k == 1:
        return np.zeros(len(values), int)
    reduced = PCA(min(k, *values.shape), random_state=0).fit_transform(imputed)
    groups = KMeans(k, n_init=10, random_state=0).fit_predict(reduced)
    votes = np.nan_to_num(np.hstack([values, 1 - values]))  # for it and against it, half of a pass
    for _ in range(ROUNDS):
        moved = MultinomialNB().fit(votes, groups).predict(votes)
        if np.array_equal(moved, groups):
            break
        groups = moved
    return np.unique(groups, return_inverse=True)[1]  # some may have lost all their people


def _bic(values: np.ndarray, groups: np.ndarray) -> float:
    """Bayesian information criterion of groups whose members vote alike, lower is better.

    A group's share on a statement is penalised by the votes it is known from, not by the number of
    people: most of them have not voted on it.
    """
    seen, agree = ~np.isnan(values), np.nan_to_num(values)
    members = np.eye(groups.max() + 1)[groups].T
    votes, sizes = members @ seen, members.sum(axis=1)
    share = ((members @ agree + 1) / (votes + 2))[groups]
    fit = np.sum(agree * np.log(share) + (seen - agree) * np.log(1 - share))
    fit += np.sum(sizes * np.log(sizes / len(values)))
    return float(
        -2 * fit + np.log(np.maximum(votes, 1)).sum() + (len(sizes) - 1) * np.log(len(values))
    )


def decide(
    ballot: Ballot, groups: np.ndarray, statements: Sequence[str], least: float = LEAST
) -> dict[str, Decision]:
    """Chooses statements that every group agrees to.

    One that nobody voted on is kept, with the agreement of half of everybody.

    Args:
      ballot: the votes.
      groups: of its participants.
      statements: ids, of those voted on and of others.
      least: share of every group, smoothed, that a statement is chosen with.
    """
    nobody = np.full(len(groups), np.nan)
    columns = dict(zip(ballot.statements, ballot.values.T, strict=True))
    decisions = {}
    for id_ in statements:
        votes = columns.get(id_, nobody)
        by_group = tuple(_share(votes[groups == group]) for group in range(groups.max() + 1))
        chosen = id_ not in columns or min(share.smoothed for share in by_group) >= least
        decisions[id_] = Decision(chosen, _share(votes), by_group, least)
    return decisions


def _share(values: np.ndarray) -> Share:
    return Share(int(np.sum(values == VALUES["agree"])), int(np.sum(~np.isnan(values))))
