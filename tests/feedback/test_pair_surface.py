"""Shipped pairs are not told apart by style, nor repeated; the command that says so prints them."""

import subprocess
import sys
from runpy import run_path

import pytest
from conftest import ROOT

from cai_jax.data.overlap import Turn, overlap_of
from cai_jax.data.readers import LabelledPair, read_pairs
from cai_jax.prompts.messages import first_user_text, user

SCRIPT = ROOT / "benchmarks" / "pair_surface.py"
SURFACE = run_path(str(SCRIPT))
BAR = 0.65


@pytest.mark.parametrize("file", SURFACE["SHIPPED"], ids=lambda file: file.stem)
def test_neither_words_nor_punctuation_tell_shipped_pairs_apart(file):
    found = SURFACE["surface"](read_pairs(file))
    assert found["bag_of_words"] <= BAR
    assert found["length_and_punctuation"] <= BAR


@pytest.mark.parametrize(
    ("chosen", "rejected"), [("Yes.", "Yes!"), ("No, no", "No no"), ("In 1990", "In may")]
)
def test_signs_and_digits_are_found(chosen, rejected):
    pairs = [LabelledPair(str(i), (user(str(i)),), chosen, rejected) for i in range(12)]
    assert SURFACE["surface"](pairs)["length_and_punctuation"] == 1.0


def test_two_words_in_a_row_tell_what_single_words_do_not():
    pairs = [
        LabelledPair(str(i), (user(str(i)),), "not bad but good", "not good but bad")
        for i in range(12)
    ]
    found = SURFACE["surface"](pairs)
    assert (found["bag_of_words"], found["two_in_a_row"]) == (0.5, 1.0)


@pytest.mark.parametrize(
    ("kind", "least", "of_several_turns"),
    [("harmlessness", 310, 40), ("helpfulness", 310, 40), ("evasiveness", 64, 5)],
)
def test_there_are_enough_pairs_and_none_is_near_another(kind, least, of_several_turns):
    pairs = read_pairs(ROOT / "datasets" / f"{kind}_pairs.jsonl")
    assert len(pairs) >= least
    assert sum(len(pair.messages) > 1 for pair in pairs) >= of_several_turns
    assert not {pair.chosen for pair in pairs} & {pair.rejected for pair in pairs}
    # Near-duplicates are found across purposes: each half is one.
    turns = [
        Turn(("audit", "evaluation")[i % 2], pair.id, first_user_text(pair.messages))
        for i, pair in enumerate(pairs)
    ]
    assert not overlap_of(turns).near_duplicates


def test_the_command_prints_a_row_a_file():
    """Of files that are named, as of those that are shipped."""
    file = ROOT / "datasets" / "evasiveness_pairs.jsonl"
    run = subprocess.run(
        [sys.executable, str(SCRIPT), str(file)], capture_output=True, text=True, cwd=ROOT
    )
    assert run.returncode == 0, run.stderr
    assert "| evasiveness_pairs.jsonl | 103 | 0." in run.stdout
