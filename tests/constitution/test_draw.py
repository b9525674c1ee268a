"""Draws of principles: by weight, by tags where a run asks for it, and otherwise evenly."""

from collections import Counter

import numpy as np
import pytest

from cai_jax.constitution.draw import draw_principles
from cai_jax.constitution.schema import CritiquePrinciple
from cai_jax.keys import named_rng

TIMES = 4000


def principles(**weights):
    return tuple(
        CritiquePrinciple(name, "us", (name,), "", "", weight) for name, weight in weights.items()
    )


def shares(among, count=1, **given):
    """How often each principle is drawn."""
    drawn = Counter(
        p.id for i in range(TIMES) for p in draw_principles(among, count, named_rng(0, i), **given)
    )
    return {p.id: drawn[p.id] / TIMES for p in among}


def test_a_principle_is_drawn_as_often_as_its_weight_says():
    found = shares(principles(general=3.0, fraud=0.5, drugs=0.5))
    assert found == pytest.approx({"general": 0.75, "fraud": 0.125, "drugs": 0.125}, abs=0.02)


def test_several_principles_differ_and_follow_their_weights():
    """Of two drawn, the second is in proportion to what the first one leaves."""
    among = principles(one=2.0, two=1.0, three=1.0)
    drawn = [draw_principles(among, 2, named_rng(1, i)) for i in range(TIMES)]
    assert all(len({p.id for p in pair}) == 2 for pair in drawn)
    found = shares(among, 2)
    other = 1 / 2 * 1 / 2 + 1 / 4 + 1 / 4 * 1 / 3  # first "one", then it; at once; after the other
    assert found == pytest.approx({"one": 2 - 2 * other, "two": other, "three": other}, abs=0.03)
    everything = draw_principles(among, 3, named_rng(0))
    assert {p.id for p in everything} == {"one", "two", "three"}


def test_a_principle_with_a_tag_of_the_prompt_is_likelier():
    among = principles(general=2.0, fraud=1.0, drugs=1.0)
    found = shares(among, tags=("fraud", "crime"), tag_factor=5.0)
    assert found == pytest.approx({"general": 2 / 8, "fraud": 5 / 8, "drugs": 1 / 8}, abs=0.03)
    assert shares(among, tags=("hate",), tag_factor=5.0) == shares(among)
    assert shares(among, tags=("fraud",), tag_factor=1.0) == shares(among)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_equal_weights_draw_as_before_there_were_weights(count):
    """Runs of constitutions without weights, those of the microworld say, stay what they were."""
    among = principles(**{f"p{i}": 1.0 for i in range(16)})
    for seed in range(50):
        before = named_rng(seed, "x").choice(16, size=count, replace=False)
        drawn = draw_principles(among, count, named_rng(seed, "x"))
        assert [p.id for p in drawn] == [f"p{i}" for i in before]
        if count == 1:
            assert before[0] == named_rng(seed, "x").integers(16)


def test_draws_hold_at_the_bounds():
    among = principles(rare=1e-3, often=1e3)
    drawn = draw_principles(among, 2, np.random.default_rng(0), ("often",), 1e6)
    assert len(drawn) == 2
