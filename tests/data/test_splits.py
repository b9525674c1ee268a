"""The split: one purpose for every first turn, whatever is around it and whatever else changes."""

import unicodedata
from collections import Counter

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cai_jax.data.readers import Prompt
from cai_jax.data.splits import PURPOSES, SERVES, ZONES, normalized, purpose_of, split_key
from cai_jax.prompts.messages import assistant, system, user

PERCENT = st.fixed_dictionaries({p: st.integers(0, len(zone)) for p, zone in ZONES.items()})
AMONG = st.sampled_from([PURPOSES, *SERVES.values()])
SHARES = {"second_model": 10, "development": 10, "audit": 15, "evaluation": 20}


def test_zones_part_the_line():
    assert sorted(place for zone in ZONES.values() for place in zone) == list(range(100))
    assert ("training", *ZONES) == PURPOSES


@given(st.text(), PERCENT, PERCENT, st.sampled_from(list(ZONES)), AMONG)
def test_a_percentage_moves_rows_into_or_out_of_its_purpose_alone(key, before, other, one, among):
    assume(one in among)  # rows that cannot serve it are drawn again where its zone has them
    after = before | {one: other[one]}
    assume(all(any(p.get(n, 100 - sum(p.values())) for n in among) for p in (before, after)))
    old, new = (purpose_of(key, percent, among) for percent in (before, after))
    assert {old, new} <= set(among)
    moved_to = one if after[one] > before[one] else new
    assert new in (old, moved_to)
    if after[one] < before[one]:
        assert old in (new, one)
    if set(among) == set(PURPOSES):
        assert {old, new} in ({old}, {one, "training"})


@given(st.text(), AMONG, st.sampled_from(PURPOSES))
def test_another_file_with_the_same_turn_moves_it_only_to_what_that_file_adds(key, among, added):
    old, new = purpose_of(key, SHARES, among), purpose_of(key, SHARES, {*among, added})
    assert new in (old, added)


@pytest.mark.parametrize("among", [PURPOSES, *set(SERVES.values())])
def test_shares_are_those_of_the_config(among):
    found = Counter(purpose_of(f"prompt {n}", SHARES, among) for n in range(4_000))
    weights = {p: SHARES.get(p, 45) for p in among}
    for purpose, weight in weights.items():
        assert found[purpose] / 4_000 == pytest.approx(weight / sum(weights.values()), abs=0.03)


def test_no_share_for_any_of_them_is_refused():
    percent = dict.fromkeys(ZONES, 0)
    with pytest.raises(ValueError, match="no share is left for development or audit"):
        purpose_of("a", percent, ("development", "audit"))
    full = {purpose: len(zone) for purpose, zone in ZONES.items()}
    assert purpose_of("a", full) != "training"


@pytest.mark.parametrize(
    "texts",
    [
        ("How can I help?", "how can I  help", " HOW CAN I HELP!?\n", "How can I\u200b “help”…"),
        ("ｈｏｗ can I", "How can I"),
        ("你好，世界。", "你好 世界"),
        ("क्या हाल है?", "क्या हाल है"),
        ("Straße", "STRASSE"),
        ("don't", "don’t", "DON'T."),
        (
            "Why me?",
            "\n\nHuman: Why me?",
            "Human: Why me?\nAssistant:",
            "\r\nHuman: Why me?\r\n\r\nAssistant: So.\r\n\r\nHuman: And you?",
            "### Instruction:\nWhy me?\n\n### Response:",
            "**User:** Why me?",
            "Q: Why me?\nA:",
            "<s>[INST] Why me? [/INST]",
            "<|im_start|>user\nWhy me?<|im_end|>\n<|im_start|>assistant\n",
            "<|start_header_id|>user<|end_header_id|>\n\nWhy me?<|eot_id|>",
            "<start_of_turn>user\nWhy me?<end_of_turn>",
            "<|user|>\nWhy me?<|end|>",
        ),
    ],
)
def test_marks_of_speakers_case_spaces_and_punctuation_do_not_matter(texts):
    assert len({normalized(text) for text in texts}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("कि", "की"),
        ("C++", "C"),
        ("?", "!"),
        ("a", "á"),
        ("Human: me", "Humans: me"),
        ("A: b", "b"),
    ],
)
def test_what_is_read_does(one, other):
    assert normalized(one) != normalized(other)


@given(st.text())
def test_how_characters_are_composed_does_not_matter(text):
    forms = (unicodedata.normalize(form, text) for form in ("NFC", "NFD"))
    assert {normalized(form) for form in forms} == {normalized(text)}
    assert bool(normalized(text)) == bool(text.strip())


def test_dialogues_that_begin_alike_stay_together():
    begin = [system("be kind"), user("Why me?"), assistant("so"), user("and then?")]
    whole, short = Prompt("a", tuple(begin)), Prompt("b", (user("why me"),))
    assert split_key(whole) == split_key(short) == "whyme"
    assert split_key(Prompt("c", (user("Why me?"),), group="me")) == "me"


@pytest.mark.parametrize(
    ("key", "purpose"),
    [
        ("sleep", ("training", "audit")),
        ("howcanihelp", ("second_model", "evaluation")),
        ("你好世界", ("development", "development")),
        ("whyme", ("audit", "audit")),
        ("", ("second_model", "audit")),
    ],
)
def test_no_turn_changes_its_purpose(key, purpose):
    """The second is that of keys which harmlessness pairs alone have."""
    among = (PURPOSES, SERVES["harmlessness_pairs"])
    assert tuple(purpose_of(key, SHARES, serves) for serves in among) == purpose
