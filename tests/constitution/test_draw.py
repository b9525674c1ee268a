"""Draws of principles: by weight, by tags where a run asks for it, and stable under edits."""

from collections import Counter
from dataclasses import replace

import pytest

from cai_jax.constitution.draw import draw_principles
from cai_jax.constitution.schema import CritiquePrinciple

TIMES = 4000


def principles(**weights):
    return tuple(
        CritiquePrinciple(name, "us", (name,), "", "", weight) for name, weight in weights.items()
    )


def shares(among, count=1, **given):
    """How often each principle is drawn."""
    drawn = Counter(
        p.id for i in range(TIMES) for p in draw_principles(among, count, 0, i, **given)
    )
    return {p.id: drawn[p.id] / TIMES for p in among}


def test_a_principle_is_drawn_as_often_as_its_weight_says():
    found = shares(principles(general=3.0, fraud=0.5, drugs=0.5))
    assert found == pytest.approx({"general": 0.75, "fraud": 0.125, "drugs": 0.125}, abs=0.02)


def test_several_principles_differ_and_follow_their_weights():
    """Of two drawn, the second is in proportion to what the first one leaves."""
    among = principles(one=2.0, two=1.0, three=1.0)
    drawn = [draw_principles(among, 2, 1, i) for i in range(TIMES)]
    assert all(len({p.id for p in pair}) == 2 for pair in drawn)
    found = shares(among, 2)
    other = 1 / 2 * 1 / 2 + 1 / 4 + 1 / 4 * 1 / 3  # first "one", then it; at once; after the other
    assert found == pytest.approx({"one": 2 - 2 * other, "two": other, "three": other}, abs=0.03)
    everything = draw_principles(among, 3, 0)
    assert {p.id for p in everything} == {"one", "two", "three"}


def test_a_principle_with_a_tag_of_the_prompt_is_likelier():
    among = principles(general=2.0, fraud=1.0, drugs=1.0)
    found = shares(among, tags=("fraud", "crime"), tag_factor=5.0)
    assert found == pytest.approx({"general": 2 / 8, "fraud": 5 / 8, "drugs": 1 / 8}, abs=0.03)
    assert shares(among, tags=("hate",), tag_factor=5.0) == shares(among)
    assert shares(among, tags=("fraud",), tag_factor=1.0) == shares(among)


@pytest.mark.parametrize("count", [1, 3])
def test_an_edit_moves_only_the_draws_that_its_principle_wins_or_loses(count):
    before = principles(**{f"p{i}": 1.0 + i % 3 for i in range(8)})
    draw = lambda among, i: draw_principles(among, count, 5, "x", i)
    ids = lambda drawn: [p.id for p in drawn]
    rewritten = (*before[:2], replace(before[2], critique_request="Other words?"), *before[3:])
    scaled = tuple(replace(p, weight=10 * p.weight) for p in before)
    heavier = (*before[:2], replace(before[2], weight=20.0), *before[3:])
    without = before[:2] + before[3:]
    moved = Counter()
    for i in range(400):
        old = ids(draw(before, i))
        for same in (rewritten, scaled, before[::-1]):
            assert ids(draw(same, i)) == old
        won, lost = ids(draw(heavier, i)), ids(draw(without, i))
        assert won == old or "p2" in won
        assert "p2" in old or lost == old
        assert [p for p in lost if p in old] == [p for p in old if p != "p2"]
        moved["won"] += won != old
        moved["lost"] += lost != old
    assert 0 < moved["lost"] < moved["won"] < 400


def test_draws_hold_at_the_bounds():
    among = principles(rare=1e-3, often=1e3)
    drawn = draw_principles(among, 2, 0, "x", tags=("often",), tag_factor=1e6)
    assert {p.id for p in drawn} == {"rare", "often"}
