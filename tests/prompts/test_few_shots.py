"""Few-shots: by seed, apart from the item's topic, and answered A as often as B."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.constitution.schema import ChoiceExample, load_constitution
from cai_jax.keys import named_rng
from cai_jax.prompts.few_shots import FewShots, balanced, swapped, topic_words
from cai_jax.prompts.messages import assistant, system, user

FILES = sorted((ROOT / "constitutions").rglob("*.yaml"))
HARMLESS = load_constitution(ROOT / "constitutions" / "harmless.yaml")


def test_items_draw_by_seed_and_by_name():
    shots = FewShots(HARMLESS.choice_examples, 3, seed=0)
    drawn = [tuple(e.id for e in shots.draw(f"item {i}", (user("Hi"),))) for i in range(40)]
    assert all(len(set(ids)) == 3 for ids in drawn)
    assert len(set(drawn)) > 25  # of 120
    assert set(sum(drawn, ())) == {e.id for e in HARMLESS.choice_examples}
    again = [tuple(e.id for e in shots.draw(f"item {i}", (user("Hi"),))) for i in range(40)]
    other = [
        tuple(e.id for e in replace(shots, seed=1).draw(f"item {i}", (user("Hi"),)))
        for i in range(40)
    ]
    assert drawn == again != other


@pytest.mark.parametrize(
    ("prompt", "left_out"),
    [
        ((user("How do I learn the violin?"),), {"choice-violin-pegs"}),
        ((user("Are violinists rich?"),), {"choice-violin-pegs"}),
        ((user("Hi"), assistant("Hello"), user("Is a redhead rare?")), {"choice-redheads"}),
        ((system("Talk of mice."), user("How?")), set()),  # "mice" is no form of "mouse" here
        ((user("What is a good way to help with this?"),), set()),
    ],
)
def test_no_few_shot_is_of_the_topic(prompt, left_out):
    shots = FewShots(HARMLESS.choice_examples, 9, seed=0)
    left = {e.id for e in shots.examples} - {e.id for e in shots.draw("item", prompt)}
    assert left == left_out


@given(st.lists(st.sampled_from("AB"), max_size=7), st.integers(0, 99))
def test_answers_are_balanced(answers, seed):
    examples = [
        ChoiceExample(str(i), "p", "q", f"{a}1", f"{a}2", a, "(A) then (B)")
        for i, a in enumerate(answers)
    ]
    found = balanced(examples, np.random.default_rng(seed))
    assert [e.id for e in found] == [e.id for e in examples]
    count = Counter(e.answer for e in found)
    assert abs(count["A"] - count["B"]) <= 1
    for old, new in zip(examples, found, strict=True):
        right = lambda e: e.option_a if e.answer == "A" else e.option_b
        assert right(old) == right(new)


def test_an_odd_answer_is_either_letter():
    one = HARMLESS.choice_examples[:1]
    letters = [balanced(one, named_rng(0, i))[0].answer for i in range(200)]
    assert 70 < letters.count("A") < 130
    places = [
        "".join(e.answer for e in balanced(HARMLESS.choice_examples, named_rng(0, i)))
        for i in range(200)
    ]
    assert len(set(places)) == 20  # every order of three of each


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_reasoning_follows_its_options(file):
    constitution = load_constitution(file)
    for example in (*constitution.choice_examples, *constitution.thought_examples):
        other = swapped(example)
        assert swapped(other) == example
        assert (other.option_a, other.option_b) == (example.option_b, example.option_a)
        # Letters stand in parentheses, where they are found.
        assert not re.search(r"(?i:option|reply|response) [AB]\b", example.reasoning)
        if example.reasoning:
            assert other.reasoning.count("(A)") == example.reasoning.count("(B)")


def test_topics_are_what_a_text_is_about():
    assert topic_words("How could I POISON my neighbor's dogs?") == {"poiso", "neigh", "dog"}
    assert topic_words("Как украсть велосипед?") & topic_words("Украсть ли?")
    assert not topic_words("What would you do with that?")


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("How does a bomb work?", "Who sells bombs?", True),
        ("guns", "Is a gun loud?", True),
        ("폭탄을 만들어 줘", "폭탄이 뭐야?", True),
        ("폭탄을 만들어 줘", "김치가 뭐야?", False),
        ("制造炸弹", "炸弹怎么拆", True),
        ("怎么制造炸弹？", "怎么种土豆？", False),
        ("爆弾の作り方を教えてください", "パンの焼き方を教えてください", False),
        ("爆弾の作り方", "爆弾はどう動く？", True),
        ("كيف تصنع قنبلة", "القنبلة خطيرة", True),
        ("كيف تصنع قنبلة", "كيف تخبز الخبز", True),  # "how" is common, and not known as such
        ("วิธีทำระเบิด", "ระเบิดคืออะไร", True),
    ],
)
def test_topics_of_any_script(one, other, near):
    assert bool(topic_words(one) & topic_words(other)) == near
