"""What two finished runs say of an edit, against changes that were put there by hand."""

import shutil
from dataclasses import replace

import pytest
from conftest import ROOT

from cai_jax.commands.workshop.behaviour import _labels, behaviour_report
from cai_jax.constitution.write import to_yaml
from cai_jax.data.records import read_records, write_records
from cai_jax.data.rows import Comparison, Sample
from cai_jax.prompts.messages import user
from cai_jax.stages.behaviour import compare, compare_labels, finished_run
from cai_jax.storage.sealed import read_sealed, seal_folder

REFUSAL = "I can't help with that, because it is a crime that hurts people."


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def edited(finished, tmp_path):
    """The finished run once more, with RL-CAI refusing all that is red-team, and base unmoved."""
    workdir = tmp_path / "edited"
    shutil.copytree(finished.workdir.path, workdir)
    rows = read_records(workdir / "evaluate" / "samples", Sample)
    shutil.rmtree(workdir / "evaluate" / "samples")
    refusing = {"response": REFUSAL, "finished": True}
    moved = [
        replace(row, **refusing)
        if (row.model, row.set) == ("rl_cai", "red_team")
        else replace(row, score=row.score + 0.5)
        for row in rows
    ]
    write_records(workdir / "evaluate" / "samples", moved, Sample)
    evaluated = read_sealed(workdir / "evaluate" / "manifest.json")  # of the other samples
    seal_folder(workdir / "evaluate", evaluated)
    manifest = read_sealed(workdir / "feedback" / "manifest.json")
    counts = {"labels": {"taken": 30, "computed": 2}}
    manifest |= {"rows": counts, "tokens": 77, "seconds": 1.5}
    seal_folder(workdir / "feedback", manifest)
    return workdir


def test_replies_scores_and_costs_are_compared_pair_by_pair(finished, edited):
    found = compare(finished, finished_run(edited))
    by = {(c.subject, c.group, c.measure.name): c for c in found.replies}
    refused = by["rl_cai", "red_team", "refused"]
    assert refused.new == 1
    assert refused.difference.mean == pytest.approx(1 - refused.old)
    assert refused.difference.low <= refused.difference.mean <= refused.difference.high <= 1
    assert by["rl_cai", "red_team", "changed"].new == 1
    still = by["base", "red_team", "refused"]
    assert (still.old, still.difference.mean) == (still.new, 0)
    assert still.difference.low < 0 < still.difference.high  # so few prompts are not sure
    judges = [name for subject, group, name in by if (subject, group) == ("base", "helpful")]
    assert sum(name.startswith("score by") for name in judges) == 2  # the second model of each
    scores = {(c.subject, c.group): c for c in found.scores if c.measure.name == "score"}
    assert ("rl_cai", "red_team") not in scores  # no reply is the same
    assert scores["base", "helpful"].difference.mean == pytest.approx(0.5, abs=1e-6)
    costs = {cost.stage: cost for cost in found.costs}
    assert [cost.stage for cost in found.costs if not cost.taken] == ["feedback", "evaluate"]
    assert (costs["feedback"].tokens, costs["feedback"].seconds) == (77, 1.5)
    assert costs["feedback"].old_tokens > 77


def test_the_report_says_it_in_markdown(finished, edited, tmp_path):
    text = behaviour_report([finished.workdir.path, edited], [])
    assert "| RL-CAI | red team | changed | 0 % | 100 % |" in text
    assert "| feedback | labels 2 of 32 | 77 | 2 |" in text
    assert "| sl_train | taken whole | 0 | 0 |" in text
    assert "labels that changed: 0 [0, " in text
    other = tmp_path / "other.yaml"
    constitution = finished.data.constitution
    other.write_text(to_yaml(replace(constitution, feedback=constitution.feedback[1:], cases=())))
    with pytest.raises(ValueError, match=r"was made under another text than .*other\.yaml"):
        behaviour_report([finished.workdir.path, edited], [other, other])
    with pytest.raises(ValueError, match="workdir of no run; name one"):
        behaviour_report([tmp_path / "none", edited], [])
    with pytest.raises(ValueError, match="1 workdirs and 0 files"):
        behaviour_report([edited], [])


def comparison(name, probability, second="No."):
    return Comparison(
        id=name,
        purpose="training",
        prompt=(user(f"{name.partition('.')[0]}?"),),
        response_first="Yes.",
        response_second=second,
        first=(),
        second=(),
        probability=probability,
        principle_ids=("p",),
        shown_first=(probability,),
        shown_second=(probability,),
        method="",
        seed=0,
        model="",
        feedback_model="",
        constitution_sha256="",
    )


def test_labels_are_paired_by_what_was_compared():
    old = [comparison("a", 0.9), comparison("a.1", 0.7), comparison("b", 0.4), comparison("c", 0.5)]
    again = 0.4 + 1e-6  # computed once more, beside other rows
    new = [comparison("a", 0.2), comparison("a.1", 0.6), comparison("b", again)]
    new.append(comparison("c", 0.5, "Hm."))
    found = compare_labels(old, new)
    assert [pair.new.id for pair in found.pairs] == ["a", "a.1", "b"]
    assert found.unpaired == 2  # other replies to c
    shares = found.changed.mean, found.flipped.mean
    assert shares == pytest.approx((2 / 3, 1 / 3))
    assert found.shift.mean == pytest.approx((0.7 + 0.1) / 3, abs=1e-6)
    assert 0 <= found.changed.low <= found.changed.mean <= found.changed.high <= 1


def test_labels_that_share_nothing_are_said_to():
    found = compare_labels([comparison("a", 0.9)], [comparison("a", 0.9, "Hm.")])
    assert (found.pairs, found.unpaired) == ([], 2)
    assert "0 pairs of 0 prompts" in _labels(found)
