"""Votes: groups that were planted are found, and what all of them agree to is chosen."""

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score

from cai_jax.constitution.schema import ConstitutionError
from cai_jax.constitution.votes import (
    Meant,
    Share,
    Vote,
    count_votes,
    decide,
    opinion_groups,
    read_votes,
)

PEOPLE, STATEMENTS = 120, 60
FLIPPED, MISSING = 0.2, 0.4


def noisy(opinions, rng):
    """Votes of 0 and 1 as people hold them, some flipped and some missing."""
    votes = np.where(rng.random(opinions.shape) < FLIPPED, 1 - opinions, opinions).astype(float)
    return np.where(rng.random(opinions.shape) < MISSING, np.nan, votes)


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_planted_groups_are_found(number):
    """Each group agrees to a half of the statements, by a coin of its own."""
    right = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        planted = rng.integers(number, size=PEOPLE)
        votes = noisy(rng.integers(2, size=(number, STATEMENTS))[planted], rng)
        found = opinion_groups(votes)
        right += found.max() + 1 == number and adjusted_rand_score(planted, found) >= 0.9
    assert right >= 18


def test_cross_group_statements_are_chosen_and_those_of_a_majority_are_not():
    """Two of three are one group: what it alone agrees to has a majority of all."""
    planted = np.repeat([0, 1, 2], [80, 20, 20])
    cross, majority = np.ones((3, 10), int), np.tile([[1], [0], [0]], 10)
    decided = []
    for seed in range(5):
        rng = np.random.default_rng(seed)
        others = rng.integers(2, size=(3, 30))
        votes = noisy(np.hstack([cross, majority, others])[planted], rng)
        ids = tuple(f"s{i:02}" for i in range(votes.shape[1]))
        ballot = count_votes(
            [Vote(f"p{i}", ids[j], votes[i, j], None, 1) for i, j in np.argwhere(~np.isnan(votes))],
            {id_: {Meant(id_, ("us", id_))} for id_ in ids},
        )
        decisions = decide(ballot, opinion_groups(ballot.values), ids)
        decided.append([decisions[id_].chosen for id_ in ids[:20]])
        shares = [decisions[id_].everyone.smoothed for id_ in ids[10:20]]
        assert np.mean(np.array(shares) > 0.5) >= 0.9  # a majority of all is for them
    chosen = np.array(decided)
    assert chosen[:, :10].sum(axis=1).min() >= 9
    assert (~chosen[:, 10:]).sum(axis=1).min() >= 9


def test_few_people_are_one_group():
    for people in range(1, 10):
        assert not opinion_groups(np.eye(people, 12)).any()


@settings(max_examples=30)
@given(st.integers(0, 99), st.integers(1, 30), st.integers(1, 6))
def test_any_votes_have_groups(seed, people, columns):
    rng = np.random.default_rng(seed)
    votes = rng.choice([0, 0.5, 1, np.nan], size=(people, columns))
    votes[0] = 1  # every statement and every participant has a vote
    votes[:, 0] = 0
    groups = opinion_groups(votes)
    sizes = np.bincount(groups)
    assert sizes.tolist() == sorted(sizes, reverse=True)
    assert sizes.min() > 0


def rows(*votes):
    return [Vote(*vote, path="votes.csv", line=i) for i, vote in enumerate(votes, 2)]


KIND, OLD_KIND, CALM = (
    Meant(principle, (name, principle))
    for principle, name in (("kind", "a"), ("kind", "b"), ("calm", "a"))
)
MEANT = {"kind": {KIND}, "old-kind": {OLD_KIND}, "bekind": {KIND}, "calm": {CALM}}
MEANT |= {"bothkind": {KIND, OLD_KIND}}  # a text that both wordings have


def test_the_order_of_rows_changes_nothing():
    votes = rows(("b", "kind", 1.0), ("a", "calm", 0.0), ("a", "kind", 0.5), ("c", "kind", 0.0))
    one, other = (count_votes(v, MEANT) for v in (votes, votes[::-1]))
    assert (one.participants, one.statements) == (("a", "b", "c"), ("calm", "kind"))
    assert (one.participants, one.statements) == (other.participants, other.statements)
    np.testing.assert_array_equal(one.values, other.values)
    np.testing.assert_array_equal(one.values, [[0, 0.5], [np.nan, 1], [np.nan, 0]])


def test_votes_on_wordings_that_are_joined_are_one_vote():
    both = rows(("a", "kind", 1.0), ("a", "old-kind", 1.0), ("b", "Be kind!", 1.0))
    ballot = count_votes([*both, *rows(("b", "old-kind", 0.0))], MEANT)
    assert ballot.values.tolist() == [[1.0], [0.5]]
    assert ballot.at_odds == 1


@pytest.mark.parametrize("again", ["kind", "Be kind!", "both kind", "KIND"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_a_wording_has_one_vote_of_each_by_whatever_it_is_named(again, value):
    twice = rows(("a", "kind", 1.0), ("A\u200b", again, value))
    with pytest.raises(ConstitutionError, match=r"line 3: .* voted on 'kind' on line 2; keep one"):
        count_votes(twice, MEANT)


def test_shares_are_smoothed_and_have_wilsons_interval():
    assert Share(0, 0).smoothed == 0.5
    assert Share(0, 0).interval == (0, 1)
    assert Share(8, 10).smoothed == 9 / 12
    assert Share(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Wilson 1927


def test_a_pass_is_a_vote_that_does_not_agree_and_no_votes_keep_a_principle():
    votes = rows(("a", "kind", 1.0), ("b", "kind", 0.5), ("c", "kind", 0.5))
    ballot = count_votes(votes, MEANT)
    decisions = decide(ballot, np.zeros(3, int), ["kind", "calm"])
    assert decisions["kind"].groups == (Share(1, 3),)
    assert not decisions["kind"].chosen
    assert decisions["calm"].chosen
    assert decisions["calm"].agreement == 0.5


GOOD = [("participant", "statement", "vote"), ("a", "kind", "agree"), ("b", "calm", "pass")]


def write(path, table):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(table)
    return path


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ([("who", *GOOD[0][1:]), *GOOD[1:]], ["line 1", "who", "participant, statement, vote"]),
        (GOOD[1:], ["line 1", "the columns are a, kind, agree"]),
        (GOOD[:1], ["holds no votes"]),
        ([], ["the columns are none"]),
        ([*GOOD, ("c", "kind")], ["line 4", "2 fields in place of 3", "quotation marks"]),
        ([*GOOD, ("c", "one", "two", "agree")], ["line 4", "4 fields"]),
        ([*GOOD, ("", "kind", "agree")], ["line 4", "participant is empty"]),
        ([*GOOD, ("c", " ", "agree")], ["line 4", "statement is empty"]),
        ([*GOOD, ("c", "kind", "yes")], ["line 4", "'yes'", "agree, disagree or pass"]),
        ([*GOOD, (), ("c", "kin", "agree")], ["line 5", "'kin'", "the nearest is 'kind'"]),
        ([*GOOD, ("a", "kind", "pass")], ["line 4", "voted on 'kind' on line 2", "keep one"]),
        ([*GOOD, ("c", "tone", "pass")], ["line 4", "'tone' may be any of calm, kind"]),
    ],
)
def test_bad_rows_name_file_line_and_remedy(tmp_path, table, words):
    path = write(tmp_path / "votes.csv", table)
    with pytest.raises(ConstitutionError) as error:
        count_votes(read_votes(path), MEANT | {"tone": {KIND, CALM}})
    for word in [str(path), *words]:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, ["no such file", "check the path"]),
        (b"\xff\xfeparticipant", ["not UTF-8", "save the file"]),
        (b'participant,statement,vote\na,"kind,agree\n', ["line", "not CSV", "quotation mark"]),
        (b"participant;statement;vote\na;kind;agree\n", ["line 1", "with commas between"]),
    ],
)
def test_files_that_are_no_votes(tmp_path, content, words):
    path = tmp_path / "votes.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConstitutionError) as error:
        read_votes(path)
    for word in [str(path), *words]:
        assert word in str(error.value)


def test_spreadsheets_write_votes_too(tmp_path):
    """With a mark before the first column, in capitals, columns in another order."""
    path = tmp_path / "votes.csv"
    path.write_bytes("\ufeffVote,Participant,Statement\r\nAgree, a ,kind\r\n\r\n".encode())
    (vote,) = read_votes(path)
    assert (vote.participant, vote.statement, vote.value, vote.line) == ("a", "kind", 1.0, 2)
