"""What an edit of a constitution leaves to compute: the same rows as without reuse, no others."""

from collections import Counter
from dataclasses import replace

import jax
import numpy as np
import pytest
from conftest import ROOT
from test_runner import refuse
from tiny_run import run_all, tiny_config

from cai_jax.config import ConfigError
from cai_jax.constitution.write import to_yaml
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Reply, Revision
from cai_jax.stages import feedback
from cai_jax.stages.checks import check_inputs
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.reuse import FILE, Computed
from cai_jax.stages.runner import run_stages
from cai_jax.stages.stage import open_run
from cai_jax.storage.sealed import seal_folder

TO_FEEDBACK = "sl_data,sl_train,feedback"
QUIET = {"red_team.rounds": 0}
TEXTS = {
    "critique_revision": ("critique_request", "revision_request"),
    "feedback": ("question", "principle", "opposite"),
}


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module")
def before_edit(model_folder, tmp_path_factory):
    """A run up to feedback, in which nobody attacks: an attacker reads principles too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        folder = tmp_path_factory.mktemp("before") / "work"
        return run_all(tiny_config(folder, model_folder, stages=TO_FEEDBACK, **QUIET))[0]


@pytest.fixture
def variant(model_folder, tmp_path):
    """Opens runs of the before_edit run's config under another constitution."""

    def opened(name, constitution, **changes):
        path = tmp_path / f"{constitution.name}.yaml"
        path.write_text(to_yaml(constitution), encoding="utf-8")
        changes = {"constitution.path": str(path), **QUIET, **changes}
        return open_run(tiny_config(tmp_path / name, model_folder, **changes))

    return opened


def run(opened, *names):
    """Runs the stages of these names; no other may have to be run."""
    opened.workdir.claim(opened.config)
    stages = stages_of(opened.config)
    pairs = zip(stages, refuse(stages), strict=True)
    run_stages(opened, [stage if stage.name in names else refused for stage, refused in pairs])
    return opened


def rewritten(constitution, part, principle_id):
    """The constitution with other words in one principle."""
    entries = (
        replace(p, **{text: f"Please. {getattr(p, text)}" for text in TEXTS[part]})
        if p.id == principle_id
        else p
        for p in getattr(constitution, part)
    )
    return replace(constitution, name="rewritten", **{part: tuple(entries)})


def records(opened, stage, kinds):
    """All rows of a stage but for the hash of the constitution that they were made under."""
    blank = {"constitution_sha256": ""}
    rows = {name: read_records(opened.workdir.folder(stage) / name, k) for name, k in kinds.items()}
    return {
        name: [replace(row, **blank) if hasattr(row, "constitution_sha256") else row for row in r]
        for name, r in rows.items()
    }


def counts(opened, stage):
    return opened.workdir.manifest(stage)["rows"]


def labels_by_principle(opened):
    """Labels that feedback makes under each principle, those of the audit included."""
    inputs = opened.inputs(feedback.STAGE)
    rows = read_records(opened.workdir.folder("feedback") / "comparisons", Comparison)
    found = Counter(principle for row in rows for principle in row.principle_ids)
    for pair in (*inputs.rows("development"), *inputs.rows("audit")):
        shown = feedback.ResponsePair(pair.id, pair.messages, "", "", ())
        found.update(p.id for p in feedback._under(inputs, "", shown).principles)
    return found


def test_a_feedback_principle_costs_the_labels_under_it(before_edit, variant):
    old = before_edit.data.constitution
    row = records(before_edit, "feedback", {"comparisons": Comparison})["comparisons"][0]
    principle = row.principle_ids[0]
    labels = labels_by_principle(before_edit)[principle]
    new = rewritten(old, "feedback", principle)
    earlier = {"reuse_from": str(before_edit.workdir.path), "stages": TO_FEEDBACK}
    reused = run(variant("reused", new, **earlier), "feedback")
    found = counts(reused, "feedback")
    assert found["labels"] == {
        "taken": counts(before_edit, "feedback")["labels"]["computed"] - labels,
        "computed": labels,
    }
    assert {kind: found[kind]["computed"] for kind in ("responses", "helpful")} == {
        "responses": 0,
        "helpful": 0,
    }
    # Computed from scratch it is the same, labels to rounding: others share their packs.
    run(variant("whole", new, **earlier | {"stages": "sl_data,sl_train"}))
    whole = run(variant("whole", new, stages=TO_FEEDBACK), "feedback")
    assert {count["taken"] for count in counts(whole, "feedback").values()} == {0}
    kinds = {"comparisons": Comparison, "helpful": Reply}
    ours, theirs = (records(r, "feedback", kinds) for r in (reused, whole))
    labels_of = lambda found: [
        (row.probability, *row.shown_first, *row.shown_second, *row.bounds)
        for row in found["comparisons"]
    ]
    unlabelled = lambda found: [
        replace(row, probability=0.5, shown_first=(), shown_second=(), bounds=())
        for row in found["comparisons"]
    ]
    np.testing.assert_allclose(labels_of(ours), labels_of(theirs), atol=1e-4)
    assert unlabelled(ours) == unlabelled(theirs)
    assert ours["helpful"] == theirs["helpful"]
    assert ours != records(before_edit, "feedback", kinds)
    one, other = (r.workdir.manifest("feedback") for r in (reused, whole))
    found, wanted = one["metrics"], other["metrics"]
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    assert jax.tree.leaves(found) == pytest.approx(jax.tree.leaves(wanted), abs=1e-4)
    assert one["tokens"] < other["tokens"]


def test_a_critique_principle_costs_the_dialogues_that_drew_it(before_edit, variant):
    old, kinds = before_edit.data.constitution, dict.fromkeys(("responses", "revisions"), Revision)
    more = {"sl_data.red_team_prompts": 48, "stages": "sl_data"}  # few revisions parse
    first = run(variant("first", old, **more), "sl_data")
    before = records(first, "sl_data", kinds)
    ((principle, _),) = Counter(row.principle_id for row in before["revisions"]).most_common(1)
    new = rewritten(old, "critique_revision", principle)
    earlier = str(first.workdir.path)
    reused = run(variant("reused", new, reuse_from=earlier, **more), "sl_data")
    whole = run(variant("whole", new, **more), "sl_data")
    assert records(reused, "sl_data", kinds) == records(whole, "sl_data", kinds)
    assert records(reused, "sl_data", kinds) != before
    one, other = (r.workdir.manifest("sl_data") for r in (reused, whole))
    assert one["metrics"] == other["metrics"]
    assert one["rows"]["response"]["computed"] == one["rows"]["helpful"]["computed"] == 0
    assert one["rows"]["critique"]["computed"] > 0
    for kind in ("critique", "revision"):
        assert one["rows"][kind]["computed"] < other["rows"][kind]["computed"]
        assert sum(one["rows"][kind].values()) == other["rows"][kind]["computed"]


def test_what_a_labeler_does_not_read_costs_no_label(before_edit, variant):
    old = before_edit.data.constitution
    entries = tuple(replace(p, author="us", weight=2 * p.weight) for p in old.feedback[::-1])
    new = replace(old, name="shuffled", feedback=entries)
    earlier = {"reuse_from": str(before_edit.workdir.path), "stages": TO_FEEDBACK}
    reused = run(variant("reused", new, **earlier), "feedback")
    assert {count["computed"] for count in counts(reused, "feedback").values()} == {0}
    kinds = {"comparisons": Comparison, "helpful": Reply}
    assert records(reused, "feedback", kinds) == records(before_edit, "feedback", kinds)


def test_a_killed_run_leaves_what_its_next_start_takes(before_edit, variant, monkeypatch):
    """In the workdir itself: the old version stays until the new one is whole."""
    old = before_edit.data.constitution
    new = rewritten(old, "feedback", old.feedback[0].id)
    earlier = {"reuse_from": str(before_edit.workdir.path), "stages": TO_FEEDBACK}
    run(variant("work", old, **earlier))
    again = variant("work", new, rerun_changed=True, stages=TO_FEEDBACK)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(feedback, "write_records", killed)
        with pytest.raises(KeyboardInterrupt):
            run(again, "feedback")
    run(again, "feedback")
    found = counts(again, "feedback")
    assert found["responses"]["computed"] == 0
    assert found["labels"]["computed"] < found["labels"]["taken"]


def test_runs_of_a_store_take_rows_of_each_other(before_edit, variant, tmp_path):
    old = before_edit.data.constitution
    store = {"stage_store": str(tmp_path / "stages"), "stages": "sl_data"}
    run(variant("one", old, **store), "sl_data")
    new = rewritten(old, "critique_revision", old.critique_revision[0].id)
    found = counts(run(variant("two", new, **store), "sl_data"), "sl_data")
    assert found["response"]["computed"] == 0


def test_values_of_another_origin_or_of_no_before_edit_stage_are_not_taken(tmp_path):
    first = Computed("one model")
    double = lambda numbers: lambda missing: [2.5 * numbers[i] for i in missing]
    assert first.fill("kind", [1, 2], double([1, 2])) == [2.5, 5.0]
    first.write(tmp_path)
    ask = lambda origin, kind: Computed(origin, [tmp_path, tmp_path / "none"]).fill(
        kind, [2, 3], lambda missing: [f"place {i}" for i in missing]
    )
    assert ask("one model", "kind") == ["place 0", "place 1"]  # it was not before_edit
    seal_folder(tmp_path, {"stage": "kind"})
    assert ask("one model", "kind") == [5.0, "place 1"]
    assert ask("one model", "other kind") == ask("another", "kind") == ["place 0", "place 1"]
    assert len((tmp_path / FILE).read_text().splitlines()) == 2
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace("5.0", "6.0"))
    assert ask("one model", "kind") == ["place 0", "place 1"]


def test_an_earlier_run_that_is_none_is_refused(variant, before_edit, tmp_path):
    opened = variant("new", before_edit.data.constitution, reuse_from=str(tmp_path / "nothing"))
    with pytest.raises(ConfigError, match=r"config\.reuse_from: .*nothing is the workdir of no"):
        check_inputs(opened, stages_of(opened.config))
