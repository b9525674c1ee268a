"""Merging: equal wordings joined, the rest listed, attribution kept, no order of files seen."""

import unicodedata
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import planted_pairs
import pytest
import unseen_pairs
from markdown_it import MarkdownIt
from merged_pairs import merged, verdicts
from planted_principles import (
    APART,
    CONTRADICTIONS,
    DUPLICATES,
    constitution,
    equal_in_wording,
)

from cai_jax.constitution.merge import (
    Source,
    merge,
    merged_constitution,
    orphans,
    statements,
)
from cai_jax.constitution.merge_report import report
from cai_jax.constitution.schema import (
    Case,
    ChoiceExample,
    ConstitutionError,
    CritiqueExample,
    FeedbackPrinciple,
    authors_of,
)
from cai_jax.constitution.votes import Decision, Meant, Share
from cai_jax.constitution.write import to_yaml


def two_files(pairs):
    """One file of the first of each pair, one of the second."""
    return [
        Source(constitution(name, [pair[at] for pair in pairs])) for at, name in enumerate("ab")
    ]


def found_pairs(found):
    """Ids of the pairs that were joined, of those in conflict, and of those that are alike."""
    joined = {
        tuple(sorted(m.entry.id for m in e.members)) for e in found.entries if len(e.members) > 1
    }
    listed = ({tuple(sorted(c.ids)) for c in of} for of in (found.conflicts, found.alike))
    return joined, *listed


def test_planted_duplicates_and_contradictions_are_found():
    pairs = DUPLICATES + CONTRADICTIONS + APART
    joined, conflicts, alike = found_pairs(merge(two_files(pairs)))
    planted = [(f"a-{i}", f"b-{i}") for i in range(len(pairs))]
    same, contrary = planted[:10], planted[10:20]
    assert len((joined | alike) & set(same)) >= 9
    assert joined | alike <= set(same)
    assert len(conflicts & set(contrary)) >= 9
    assert conflicts <= set(contrary)


def test_what_is_alike_is_joined_for_whoever_has_read_it():
    files = two_files(DUPLICATES + CONTRADICTIONS + APART)
    found = merge(files, join_alike=True)
    joined, conflicts, alike = found_pairs(found)
    assert len(joined) >= 9
    assert joined <= {(f"a-{i}", f"b-{i}") for i in range(10)}
    assert not alike
    assert conflicts == found_pairs(merge(files))[1]
    both = next(entry for entry in found.entries if len(entry.members) > 1)
    assert both.entry.weight == sum(member.weight for member in both.members)
    assert merge(files[::-1], join_alike=True) == found
    told = report(found, merged_constitution(found, "all"))
    assert "## Equal in wording or alike, joined: " in told  # the report says what was allowed
    assert "at most" not in told


def test_planted_entries_of_equal_wording_are_joined():
    pairs = [(first, equal_in_wording(first)) for first, _ in DUPLICATES]
    assert all(one != other for one, other in pairs)
    joined, conflicts, alike = found_pairs(merge(two_files(pairs)))
    assert joined == {(f"a-{i}", f"b-{i}") for i in range(len(pairs))}
    assert not conflicts | alike


@pytest.mark.parametrize(
    ("pairs", "kinds"),
    [
        (planted_pairs.DUPLICATES, ["joined", "alike"]),
        (planted_pairs.CONTRADICTIONS, ["conflict"]),
    ],
    ids=["duplicates", "contradictions"],
)
def test_what_lint_finds_in_a_file_merge_finds_between_files(pairs, kinds):
    """Both go by cai_jax.constitution.pairs."""
    found = verdicts(pairs)
    assert sum(map(found.count, kinds)) >= 0.9 * len(pairs) >= 9


SETTLED = [  # that were joined before, as near-duplicates
    (
        "The assistant should give its own opinion on politics when asked.",
        "The assistant should keep its opinion on politics to itself.",
    ),
    (
        "Refer every legal question to a lawyer.",
        "Answer every legal question yourself, without a lawyer.",
    ),
    (
        "Which response takes the side of the tenant?",
        "Which response takes the side of the landlord against the tenant?",
    ),
]


@pytest.mark.parametrize(
    "pairs",
    [SETTLED, planted_pairs.CONTRADICTIONS, unseen_pairs.CONTRADICTIONS],
    ids=["settled", "planted", "unseen"],
)
def test_no_contradiction_is_joined(pairs):
    """Neither in a file of many, whose form is left out of comparisons, nor alone."""
    assert "joined" not in verdicts(pairs)
    assert all("joined" not in verdicts([pair]) for pair in pairs)


def test_what_was_settled_silently_is_listed():
    assert set(verdicts(SETTLED)) <= {"conflict", "alike"}


def test_what_is_alike_stays_and_is_told():
    found = merged(planted_pairs.DUPLICATES[:5])
    result = merged_constitution(found, "all")
    told = report(found, result)
    assert found.alike
    for pair in found.alike:
        for id_, member, field in zip(pair.ids, pair.members, pair.fields, strict=True):
            assert f"    - `{id_}` of {member.origin}, in: {getattr(member.entry, field)}" in told
    assert len(result.feedback) == 10


def test_the_order_of_files_changes_nothing():
    files = [
        Source(constitution("a", [first for first, _ in DUPLICATES + CONTRADICTIONS]), 2.0),
        Source(constitution("b", [second for _, second in DUPLICATES + CONTRADICTIONS]), 1.0),
        Source(constitution("c", [DUPLICATES[0][0], *(first for first, _ in APART)]), 0.3),
        Source(constitution("d", [equal_in_wording(first) for first, _ in DUPLICATES])),
    ]
    made = set()
    for order in permutations(files):
        found = merge(order)
        result = merged_constitution(found, "all")
        made.add((to_yaml(result), report(found, result)))
    assert len(made) == 1


def test_what_is_joined_keeps_all_its_authors_and_the_sum_of_weights():
    pairs = [(first, equal_in_wording(first)) for first, _ in DUPLICATES]
    one, other = two_files(pairs)
    found = merge([replace(one, weight=0.5), replace(other, weight=3.0)])
    for principle in merged_constitution(found, "all").feedback:
        assert authors_of(principle) == ("Author of b", "Author of a")  # the heavier wording first
        assert principle.weight == 3.5
        assert principle.question == pairs[int(principle.id[2:])][1][0]
    first, second = merged_constitution(found, "all").critique_revision
    assert (first.author, first.weight) == ("Author of a", 0.5)
    assert (second.author, second.weight) == ("Author of b", 3.0)


def test_conflicts_stay_and_are_named():
    found = merge(two_files(CONTRADICTIONS))
    result = merged_constitution(found, "all")
    assert len(result.feedback) == 2 * len(CONTRADICTIONS)
    told = report(found, result)
    for conflict in found.conflicts:
        assert all(f"`{id_}`" in told for id_ in conflict.ids)
        assert conflict.why in told


def test_contradictions_within_one_file_are_no_business_of_a_merge():
    """They are its authors' own, and lint finds them; but nothing joins them."""
    both = [texts for pair in CONTRADICTIONS for texts in pair]
    found = merge([Source(constitution("a", both))])
    assert not found.conflicts
    assert len(found.of("feedback")) == len(both)


def test_names_with_a_slash_in_them_are_not_taken_for_others():
    """a + b/c and a/b + c were one key, and one of the two principles was lost."""
    named = lambda name, id_, texts: replace(
        constitution(name, [texts]), feedback=(FeedbackPrinciple(id_, name, ("general",), *texts),)
    )
    files = [named("a", "b/c", APART[0][0]), named("a/b", "c", APART[1][0])]
    found = merge([Source(c) for c in files])
    assert {p.question for p in merged_constitution(found, "all").feedback} == {
        APART[0][0][0],
        APART[1][0][0],
    }


def test_ids_that_look_alike_are_told_apart():
    """By case, by invisible characters, by the way in which an accent is encoded."""
    accented = "caf\u00e9"
    ids = [accented, unicodedata.normalize("NFD", accented), "Caf\u00e9", "ca\u200bf\u00e9"]
    texts = [first for first, _ in APART] + [DUPLICATES[0][0]]
    files = [
        replace(constitution(name, [said]), feedback=(FeedbackPrinciple(id_, "us", ("x",), *said),))
        for name, id_, said in zip("abcd", ids, texts, strict=True)
    ]
    found = merge([Source(c) for c in files])
    assert {e.id for e in found.of("feedback")} == {
        f"{id_}-{name}" for name, id_ in zip("abcd", ids, strict=True)
    }
    assert len(statements(found)[accented]) == 4  # so that a vote on it is refused
    named = [Source(replace(files[0], name=accented)), Source(replace(files[1], name=ids[2]))]
    with pytest.raises(ConstitutionError, match="give one another 'name'"):
        merge(named)


def test_no_name_breaks_out_of_the_report():
    """Neither a constitution's nor an author's, nor an id, in any section."""
    odd = "x`\n\n# forged |\n| --- |\n"
    both = DUPLICATES[:1] + CONTRADICTIONS[:1] + APART[:1]
    files = [
        replace(
            c,
            name=f"{c.name} {odd}",
            authors=(odd,),
            feedback=tuple(replace(p, id=f"{p.id[2:]}{odd}", author=odd) for p in c.feedback),
        )
        for c in (s.constitution for s in two_files([*both, (APART[1][0], APART[1][0])]))
    ]
    found = merge([Source(c) for c in files])
    assert found.conflicts
    assert found.alike
    told = MarkdownIt().enable("table").parse(report(found, merged_constitution(found, odd)))
    headings = [told[i + 1].content for i, t in enumerate(told) if t.type == "heading_open"]
    assert len(headings) == 6
    assert not any(heading.startswith("forged") for heading in headings)
    assert sum(t.type == "table_open" for t in told) == 2


def test_equal_ids_of_different_things_are_renamed():
    named = lambda name, pair: replace(
        constitution(name, [pair]),
        feedback=tuple(FeedbackPrinciple("mine", name, ("general",), *texts) for texts in [pair]),
    )
    files = [named("b", APART[0][0]), named("a", APART[1][0]), named("c", DUPLICATES[0][0])]
    found = merge([Source(c) for c in files])
    assert {e.id for e in found.of("feedback")} == {"mine-a", "mine-b", "mine-c"}
    meant = statements(found)
    mine = {Meant(f"mine-{name}", (name, "mine")) for name in "abc"}
    assert meant["mine"] == mine  # a vote on it is refused
    assert meant["mine-a"] == {Meant("mine-a", ("a", "mine"))}
    taken = replace(
        files[1], critique_revision=(replace(files[1].critique_revision[0], id="mine-b"),)
    )
    ids = [e.id for e in merge([Source(files[0]), Source(taken)]).entries]
    assert len(set(ids)) == len(ids)
    assert "mine-b-2" in ids


def test_equal_ids_of_one_thing_stay():
    c = constitution("a", [DUPLICATES[0][0]])
    found = merge([Source(c), Source(replace(c, name="b"))])
    assert [e.id for e in found.entries] == ["a-critique", "a-0"]


CHOICE = ChoiceExample(
    "one", "My bread is flat, why?", "Which is the more useful response?", "Your yeast may be old.",
    "Bread is a food.", "A",
)  # fmt: skip
SWAPPED = replace(CHOICE, id="two", option_a=CHOICE.option_b, option_b=CHOICE.option_a, answer="B")


def with_choices(name, *examples):
    return constitution(name, [APART["ab".index(name)][0]], choice_examples=examples)


def test_few_shots_are_joined_whatever_their_letters():
    found = merge([Source(with_choices("b", SWAPPED)), Source(with_choices("a", CHOICE))])
    assert merged_constitution(found, "all").choice_examples == (CHOICE,)


def test_few_shots_with_the_other_answer_are_in_conflict():
    other = replace(CHOICE, id="two", answer="B")
    found = merge([Source(with_choices("b", other)), Source(with_choices("a", CHOICE))])
    assert [c.ids for c in found.conflicts] == [("one", "two")]
    assert merged_constitution(found, "all").choice_examples == (CHOICE, other)
    elsewhere = replace(other, prompt="How long may a cat be left alone at home?")
    found = merge([Source(with_choices("b", elsewhere)), Source(with_choices("a", CHOICE))])
    assert not found.conflicts


def test_cases_go_with_their_principles():
    """Under the ids of the result; equal ones of both files are one."""
    case = lambda id_, *of, text="How?": Case(id_, (text,), "So.", "No.", of)
    one, other = (
        replace(source.constitution, cases=cases)
        for source, cases in zip(
            two_files([(DUPLICATES[0][0], equal_in_wording(DUPLICATES[0][0])), *APART[:2]]),
            (
                (case("x", "a-0"), case("y", "a-1", text="Why?")),
                (case("x", "b-0", "b-2"), case("y", "b-1", text="When?")),
            ),
            strict=True,
        )
    )
    found = merge([Source(other), Source(one)])
    every = (case("x", "a-0", "b-2"), case("y", "a-1", text="Why?"))
    assert merged_constitution(found, "all").cases == (*every, case("y-b", "b-1", text="When?"))
    out = replace(decision(1), chosen=False)
    decisions = {p.id: decision(8) for p in merged_constitution(found, "all").feedback}
    decisions |= {"a-critique": decision(8), "a-1": out, "a-0": out}
    assert merged_constitution(found, "all", decisions).cases == (
        case("x", "b-2"),
        case("y", "b-1", text="When?"),
    )


def decision(*agree):
    shares = tuple(Share(a, 8) for a in agree)
    return Decision(min(agree) > 4, Share(sum(agree), 8 * len(agree)), shares, 0.5)


def test_weights_follow_agreement_and_what_is_out_takes_its_few_shots_along():
    texts = [first for first, _ in APART]
    shots = tuple(
        replace(CHOICE, id=f"of-{i}", prompt=f"{text[1]} How?", question=text[0])
        for i, text in enumerate(texts)
    )
    critique = CritiqueExample("shot", "p", "r", "Would anybody mind?", "c", "v", "s")
    c = constitution("a", texts, choice_examples=shots, critique_examples=(critique,))
    found = merge([Source(c, 2.0)])
    decisions = {"a-critique": decision(7), "a-0": decision(7, 5), "a-1": decision(8, 2)}
    decisions["a-2"] = decision(8, 8)
    result = merged_constitution(found, "all", decisions)
    assert {p.id: p.weight for p in result.feedback} == {"a-0": 2 * 0.6, "a-2": 2 * 0.9}
    assert [e.id for e in result.choice_examples] == ["of-0", "of-2"]
    assert [e.id for e in orphans(found, {"a-1"})] == ["of-1"]
    assert result.critique_examples == (critique,)  # nobody's principle asks that


def test_what_cannot_be_merged_is_refused():
    a = constitution("a", [APART[0][0]])
    with pytest.raises(ConstitutionError, match=r"^two.yaml: one.yaml has the name 'a', too; give"):
        merge(
            [Source(a, 1, Path("one.yaml")), Source(replace(a, version="2"), 1, Path("two.yaml"))]
        )
    with pytest.raises(ConstitutionError, match=r"weight 5000.*--weights"):
        merged_constitution(merge([Source(a, 5000)]), "all")
    decisions = {"a-critique": decision(8), "a-0": decision(1)}
    refused = r"^v.csv: no principle of feedback.* lower --agreement to 0.2, which the best"
    with pytest.raises(ConstitutionError, match=refused):
        merged_constitution(merge([Source(a)]), "all", decisions, Path("v.csv"))
