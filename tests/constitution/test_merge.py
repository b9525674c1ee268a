"""Merging: duplicates joined, contradictions listed, attribution kept, no order of files seen."""

import json
from dataclasses import replace
from itertools import permutations

import planted_pairs
import pytest
from planted_principles import APART, CONTRADICTIONS, DUPLICATES, constitution

from cai_jax.constitution.imports import import_constitution
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
from cai_jax.constitution.votes import Decision, Share
from cai_jax.constitution.write import to_yaml


def two_files(pairs):
    """One file of the first of each pair, one of the second."""
    return [
        Source(constitution(name, [pair[at] for pair in pairs])) for at, name in enumerate("ab")
    ]


def found_pairs(found):
    """Numbers of the pairs that were joined, and of those in conflict."""
    joined = {
        tuple(sorted(m.entry.id for m in e.members)) for e in found.entries if len(e.members) > 1
    }
    return joined, {tuple(sorted(c.ids)) for c in found.conflicts}


def test_planted_duplicates_and_contradictions_are_found():
    pairs = DUPLICATES + CONTRADICTIONS + APART
    joined, conflicts = found_pairs(merge(two_files(pairs)))
    planted = [(f"a-{i}", f"b-{i}") for i in range(len(pairs))]
    same, contrary = planted[:10], planted[10:20]
    assert len(joined & set(same)) >= 9
    assert joined <= set(same)
    assert len(conflicts & set(contrary)) >= 9
    assert conflicts <= set(contrary)


@pytest.mark.parametrize(
    ("pairs", "kind"),
    [(planted_pairs.DUPLICATES, "joined"), (planted_pairs.CONTRADICTIONS, "conflicts")],
    ids=["joined", "conflicts"],
)
def test_what_lint_finds_in_a_file_merge_finds_between_files(tmp_path, pairs, kind):
    """Both go by cai_jax.constitution.pairs."""
    files = []
    for at, side in enumerate("xy"):
        path = tmp_path / f"{side}.json"
        path.write_text(json.dumps({f"{side}-{n}": pair[at] for n, pair in enumerate(pairs)}))
        files.append(Source(import_constitution([path], side, "us")))
    joined, conflicts = found_pairs(merge(files))
    found = {"joined": joined, "conflicts": conflicts}[kind]
    assert sum((f"x-{n}", f"y-{n}") in found for n in range(len(pairs))) >= 0.9 * len(pairs) >= 9


def test_the_order_of_files_changes_nothing():
    files = [
        Source(constitution("a", [first for first, _ in DUPLICATES + CONTRADICTIONS]), 2.0),
        Source(constitution("b", [second for _, second in DUPLICATES + CONTRADICTIONS]), 1.0),
        Source(constitution("c", [DUPLICATES[0][0], *(first for first, _ in APART)]), 0.3),
    ]
    made = set()
    for order in permutations(files):
        found = merge(order)
        result = merged_constitution(found, "all")
        made.add((to_yaml(result), report(found, result)))
    assert len(made) == 1


def test_what_is_joined_keeps_all_its_authors_and_the_sum_of_weights():
    one, other = two_files(DUPLICATES)
    found = merge([replace(one, weight=0.5), replace(other, weight=3.0)])
    joined = [e.id for e in found.of("feedback") if len(e.members) > 1]
    assert len(joined) >= 9
    for principle in merged_constitution(found, "all").feedback:
        if principle.id not in joined:
            continue
        assert authors_of(principle) == ("Author of b", "Author of a")  # the heavier wording first
        assert principle.weight == 3.5
        assert principle.question == DUPLICATES[int(principle.id[2:])][1][0]
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


def test_what_is_joined_is_alike_in_every_pair():
    """Not by a chain, each link of which is near the next one alone."""
    words = [f"word{i:02}" for i in range(40)]
    chain = [
        (
            "Which is better?",
            " ".join(words[i : i + 20]),
            f"{i} " + " ".join(words[i : i + 20][::-1]),
        )
        for i in range(0, 20, 5)
    ]
    for joined in merge([Source(constitution("a", chain))]).of("feedback"):
        numbers = [int(m.entry.id[2:]) for m in joined.members]
        assert max(numbers) - min(numbers) <= 1


def test_equal_ids_of_different_things_are_renamed():
    named = lambda name, pair: replace(
        constitution(name, [pair]),
        feedback=tuple(FeedbackPrinciple("mine", name, ("general",), *texts) for texts in [pair]),
    )
    files = [named("b", APART[0][0]), named("a", APART[1][0]), named("c", DUPLICATES[0][0])]
    found = merge([Source(c) for c in files])
    assert {e.id for e in found.of("feedback")} == {"mine-a", "mine-b", "mine-c"}
    meant = statements(found)
    assert meant["mine"] == {"mine-a", "mine-b", "mine-c"}  # a vote on it is refused
    assert meant["mine-a"] == {"mine-a"}
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
            two_files(DUPLICATES[:1] + APART[:2]),
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
    with pytest.raises(ConstitutionError, match="the name 'a'; give one another"):
        merge([Source(a), Source(replace(a, version="2"))])
    with pytest.raises(ConstitutionError, match=r"weight 5000.*--weights"):
        merged_constitution(merge([Source(a, 5000)]), "all")
    decisions = {"a-critique": decision(8), "a-0": decision(1)}
    with pytest.raises(ConstitutionError, match=r"no principle of feedback.*--agreement"):
        merged_constitution(merge([Source(a)]), "all", decisions)
