"""Runs side by side: pairs are replies to the same prompt, and names are text."""

import json
import re

import pytest
from small_evidence import replies
from small_summary import summary

from cai_jax.commands.reports import names_of, runs_in
from cai_jax.report.compare import Entry, base_of, lines_of, render_comparison, transcripts_of


def entry(name, texts, seed=0, policy="rl_cai"):
    """A run that answered two prompts of each set."""
    rows = [reply.row for reply in replies(policy, texts, [0] * 5)]
    return Entry(name, summary(seed=seed, policies={policy: "RL-CAI"}), rows)


ONE = entry("one", ["a", "a b", "a", "a", "a"])
OTHER = entry("other", ["a b", "a b c d", "a", "a", "a"])


def line(entries, measure, group="red_team"):
    (found,) = [
        found
        for found in lines_of(entries, None)
        if (found.measure.name, found.group) == (measure, group)
    ]
    return found


def test_differences_are_paired_by_prompt():
    found = line([ONE, OTHER], "words")
    assert [mean.mean for mean in found.means] == [1.5, 3]
    first, difference = found.differences
    assert first is None
    assert (difference.mean, difference.n, difference.units) == (1.5, 2, 2)
    assert difference.low < 1.5 < difference.high


def test_prompts_that_one_run_alone_answered_are_in_no_difference():
    shorter = Entry("shorter", OTHER.summary, OTHER.samples[1:])
    difference = line([ONE, shorter], "words").differences[1]
    assert (difference.mean, difference.n) == (2, 1)
    assert difference.low is None


def test_a_run_is_compared_with_the_first_of_its_seed():
    runs = [entry("a", ["a"] * 5, seed) for seed in (0, 1, 0, 1, 2)]
    assert [base_of(runs, number) for number in range(5)] == [0, 0, 0, 1, 0]


def test_classes_are_shares_with_bounds():
    difference = line([ONE, OTHER], "engages").differences[1]
    assert difference.mean == 0
    assert -1 <= difference.low < 0 < difference.high <= 1  # two alike pairs prove little


def test_policies_that_one_run_lacks_are_left_out():
    assert [*lines_of([ONE, entry("x", ["a"] * 5, policy="sl_cai")], None)] == []


def test_replies_to_shared_prompts_stand_side_by_side():
    (first, *_) = transcripts_of([ONE, OTHER])
    assert [text["of"] for text in first["texts"]] == ["one", "other"]


def test_names_and_settings_are_text():
    evil = "<script>alert(1)</script>"
    html = render_comparison([ONE, entry(evil, ["a"] * 5)], None, [(evil, [evil, evil])])
    assert html.count("<script") == 2
    data = re.search(r'id="transcripts-data">(.*?)</script>', html, re.S)[1]
    assert json.loads(data)["transcripts"][0]["texts"][1]["of"] == evil


def test_a_sweep_is_all_its_finished_runs(tmp_path):
    for run in ("a/0", "a/1", "a/2", "b/0"):
        folder = tmp_path / "runs" / run / "run"
        (folder / "report").mkdir(parents=True)
        (folder / "config.json").touch()
        if run != "a/1":
            (folder / "report" / "summary.json").touch()
    found = runs_in(tmp_path)
    assert names_of(found) == ["a/0", "a/2", "b/0"]
    assert runs_in(found[0]) == [found[0]]


@pytest.mark.parametrize(
    ("paths", "names"),
    [(["/x/a", "/x/b"], ["a", "b"]), (["/x/a/run", "/y/a/run"], ["x", "y"])],
)
def test_names_are_what_tells_paths_apart(tmp_path, paths, names):
    found = names_of([tmp_path / path.lstrip("/") for path in paths])
    assert found == names
