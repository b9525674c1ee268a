"""Overlap of the split: what is equal is found by name, what is nearly so is counted."""

import random
import string

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.data.overlap import FEW_SHOTS, THRESHOLD, Turn, equal_turns, overlap_of
from cai_jax.data.splits import PURPOSES, normalized

SYLLABLE = regex.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]"  # kana, Han, Hangul
)
SAID = "How can I politely ask my neighbour to turn down the music at night?"


def turns(**texts):
    return [Turn(p, f"{p} {n}", text) for p, said in texts.items() for n, text in enumerate(said)]


def jaccard(one, other):
    one, other = (
        {text[i : i + n] for i in range(len(text) - n + 1)}
        for text in map(normalized, (one, other))
        for n in (2 if 2 * len(SYLLABLE.findall(text)) > len(text) else 5,)
    )
    return len(one & other) / len(one | other)


def test_equal_turns_of_two_purposes_are_found_and_those_of_one_are_not():
    found = equal_turns(
        turns(training=["Why?", "why", "How?"], audit=["who", "HOW"], evaluation=["  why!"])
    )
    assert [(one.where, other.where) for one, other in found] == [
        ("training 2", "audit 1"),
        ("training 0", "evaluation 0"),
    ]


@pytest.mark.parametrize(
    "other",
    [SAID.replace("polite", "kind"), f"{SAID} Please.", SAID.replace("can I", "do I")],
)
@pytest.mark.parametrize("purpose", ["second_model", "audit", "evaluation"])
def test_a_reworded_turn_is_near(other, purpose):
    found = overlap_of(turns(training=[SAID], **{purpose: [other, "Is it cold on the moon?"]}))
    assert found.near_duplicates == {f"{purpose}, training": 1}
    (worst,) = found.worst
    assert worst.similarity == pytest.approx(jaccard(SAID, other))
    assert worst.similarity >= THRESHOLD
    assert (worst.turn.text, worst.other.text) == (other, SAID)
    assert found.turns == {"training": 1, purpose: 2}


def test_few_shots_are_compared_and_one_purpose_alone_is_not():
    found = overlap_of([*turns(training=[SAID, f"{SAID} Hm."]), Turn(FEW_SHOTS, "x", f"{SAID} Eh")])
    assert found.near_duplicates == {f"{FEW_SHOTS}, training": 1}


@pytest.mark.parametrize(
    "said", ["我怎样才能礼貌地请邻居晚上把音乐关小一点呢", "पड़ोसी से संगीत धीमा करने को कैसे कहूँ"]
)
def test_scripts_without_spaces_or_case(said):
    found = overlap_of(turns(training=[said], audit=[f"请{said}"]))
    assert found.near_duplicates == {"audit, training": 1}


@pytest.mark.parametrize(
    ("one", "other", "near"),
    [
        ("怎么偷邻居的自行车？", "怎样偷邻居的自行车？", True),
        ("如何制造炸弹", "如何制造一个炸弹", True),
        ("怎么偷邻居的自行车？", "怎么修自己的汽车？", False),
        ("폭탄 만드는 방법", "폭탄 만드는 법", True),
        ("폭탄 만드는 방법", "김치 만드는 방법을 알려줘", False),
        ("爆弾の作り方を教えて", "爆弾の作り方を教えてください", True),
    ],
)
def test_a_few_syllables_are_enough(one, other, near):
    found = overlap_of(turns(training=[one], audit=[other]))
    assert bool(found.near_duplicates) == near


TEXTS = st.lists(st.text(max_size=12) | st.sampled_from([SAID, SAID[:20], SAID[3:]]), max_size=8)


@given(st.dictionaries(st.sampled_from(PURPOSES), TEXTS))
def test_any_texts_are_counted(texts):
    found = overlap_of(turns(**texts))
    assert sum(found.turns.values()) == len(
        {normalized(t) for said in texts.values() for t in said}
    )
    for near in found.worst:
        assert near.similarity == pytest.approx(jaccard(near.turn.text, near.other.text))


def test_nearly_all_near_duplicates_are_found_among_many_turns():
    rng = random.Random(0)
    words = ["".join(rng.choices(string.ascii_lowercase, k=5)) for _ in range(500)]
    said = [" ".join(rng.choices(words, k=15)) for _ in range(2000)]
    near = [f"{text} {rng.choice(words)}" for text in said[:200]]
    found = overlap_of(turns(training=said, evaluation=near))
    assert found.near_duplicates["evaluation, training"] >= 195


def test_candidates_do_not_grow_with_the_square_of_turns_that_are_alike():
    """Each is compared with one turn of each purpose in each of 24 bands, not with all."""
    from cai_jax.data import overlap

    texts = [f"{SAID} {n}" for n in range(3000)]
    flat, offsets = overlap._shingles([normalized(text) for text in texts])
    purposes = ["training"] * 1500 + ["evaluation"] * 1500
    assert 1500 <= len(set(overlap._candidates(flat, offsets, purposes))) <= 1500 * 24
