"""Letters of any script."""

import pytest

from cai_jax.letters import odd_letter, odd_name, word_count


@pytest.mark.parametrize(
    ("text", "words"),
    [("", 0), ("In 1931 — so.", 4), ("助手应当诚实。", 3), ("用 JSON 回答", 3), ("ผู้ช่วยควร", 5)],
)
def test_words_are_counted_where_no_spaces_are(text, words):
    assert word_count(text) == words


def test_texts_may_have_layout_and_joiners_and_names_may_not():
    for text in ("a\tb\r\n", "a\u200db", "a\u00a0b"):
        assert odd_letter(text) == ""
        assert "which nobody sees" in odd_name(text.strip())
    assert odd_name("ñ-2 b") == ""
    assert "surrogate" in odd_letter("a\udcff")
    assert "U+007F" in odd_letter("a\x7f")
