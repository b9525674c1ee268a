"""What counts as the same without asking anybody, and what must not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.constitution.same import folded, same_words

EQUAL = [
    ("Name the source of every number.", "name a source of each number"),
    ("You share no secrets, and you ask for none.", "You share no secret and ask for none."),
    ("Which reply doesn't flatter the reader?", "Which response does not flatter a reader?"),
    ("It can't harm someone’s pupils.", "It cannot harm somebody's pupil."),
    ("Repli\u00e9s caf\u00e9", "Replie\u0301s cafe\u0301"),
]
# Contraries that no list of antonyms has: each would be joined by what most of the words say.
CONTRARY = [
    ("Take the side of the tenant.", "Take the side of the landlord."),
    ("Warn people before they act.", "Warn people after they act."),
    ("Tell the parents what the teenager said.", "Tell the teenager what the parents said."),
    ("Share the names when asked.", "Share the names unless asked."),
    ("Answer in English.", "Answer only in English."),
    ("Show a little doubt.", "Show little doubt."),
    ("Say nothing that is wrong.", "Say nothing is wrong."),
    ("Round every amount up.", "Round every amount down."),
    ("You may name the firm.", "You must name the firm."),
    ("Accept 5 % of the calls.", "Accept -5 % of the calls."),
    ("Decide for clients, not with them.", "Decide, for clients, not with them."),
    ("Keep his secrets from her.", "Keep her secrets from him."),
    ("Answer with 👍.", "Answer with 👎."),
    ("Do what the law asks.", "Do all that the law asks."),
]


@pytest.mark.parametrize(("one", "other"), EQUAL)
def test_articles_number_and_case_are_no_difference(one, other):
    assert same_words(one) == same_words(other)


@pytest.mark.parametrize(("one", "other"), CONTRARY)
def test_any_other_word_is_one(one, other):
    assert same_words(one) != same_words(other)


@given(st.lists(st.from_regex(r"\A[b-z]{5,8}x\Z"), min_size=2, max_size=6, unique=True))
def test_no_word_and_no_order_is_passed_over(words):
    told = same_words(" ".join(words))
    assert len(told) == len(words)
    assert told != same_words(" ".join(words[1:]))
    assert told != same_words(" ".join(reversed(words)))


def test_names_are_as_people_see_them():
    assert folded("Caf\u00e9\u200b") == folded("CAFE\u0301") == "caf\u00e9"
    assert folded("kind") != folded("kinder")
