"""Secrets are cut from all that people read, and a run that has one goes on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.redaction import may_be, public, without_secrets

KEY = "hf_" + "AbCd" * 8


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://me:word@host/a", "https://***@host/a"),
        ("https://host/a?token=abc&b=1", "https://host/a?token=***&b=1"),
        ("https://host/a?b=1&X-Amz-Signature=ab12", "https://host/a?b=1&X-Amz-Signature=***"),
        (f"be kind, {KEY}.", "be kind, ***."),
        ("AKIA" + "ABCD" * 4, "***"),
        ("pip asked http://u@h/ and http://v:w@h/", "pip asked http://***@h/ and http://***@h/"),
    ],
)
def test_what_has_the_form_of_a_secret_is_cut(text, left):
    assert without_secrets(text) == left


@pytest.mark.parametrize(
    "text",
    ["max_new_tokens=4", "hf:org/name@main", "a@b.org", "sk-learn", "x?tokens", "hf_transfer"],
)
def test_other_texts_stay(text):
    assert without_secrets(text) == text


def test_what_the_environment_keeps_is_cut_anywhere_in_a_tree(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "qwertzuiop")
    tree = {"a": ["x qwertzuiop", 1, None], "qwertzuiop": {"b": ("qwertzuiop",)}}
    assert public(tree) == {"a": ["x ***", 1, None], "***": {"b": ["***"]}}


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4), st.text(min_size=1))
def test_a_text_may_be_what_it_was_before_a_secret_was_cut(parts, secret):
    assert may_be("***".join(parts), secret.join(parts))


@pytest.mark.parametrize(
    ("shown", "value"), [("a***b", "ab"), ("a***b", "acd"), ("a", "b"), (["***"], []), (1, 2)]
)
def test_a_text_that_differs_elsewhere_is_another(shown, value):
    assert not may_be(shown, value)
