"""Groups with constitutions of their own, from labels to the report, on the tiny run."""

import numpy as np
import pytest
from conftest import ROOT
from program_spy import check_listed, listed
from tiny_run import run_all, tiny_config

from cai_jax.config import ConfigError
from cai_jax.constitution.schema import ConstitutionError, load_constitution
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Sample, TrainingPair
from cai_jax.evaluation.attacks import ATTACKS
from cai_jax.evaluation.measure import PROMPT_SETS
from cai_jax.models.io.checkpoint import read_info
from cai_jax.report.summary import read_summary
from cai_jax.stages import pm_train, rl
from cai_jax.stages.behaviour import compare, finished_run
from cai_jax.stages.checks import check_inputs
from cai_jax.stages.engines import make_reward
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.pm_train import comparisons_of
from cai_jax.stages.stage import open_run
from cai_jax.stages.workdir import link_folder

FILES = {name: f"constitutions/groups/{name}.yaml" for name in ("nurses", "lawyers")}
GROUPS = {"constitution.groups": ",".join(f"{name}={file}" for name, file in FILES.items())}
# An attacker keeps away from what few-shots say, those of the groups among them.
REDONE = {"red_team", "feedback", "pm_train", "second_model", "rl", "evaluate", "report"}


@pytest.fixture(scope="module")
def plural_calls(finished, model_folder, tmp_path_factory):
    """The tiny run again, with two groups, and the programs that each stage called."""
    workdir = tmp_path_factory.mktemp("plural") / "work"
    link_folder(finished.workdir.path, workdir)
    changes = {**GROUPS, "rl.objective": "minimum", "rerun_changed": True}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield run_all(tiny_config(workdir, model_folder, **changes))


@pytest.fixture
def plural(plural_calls):
    return plural_calls[0]


@pytest.mark.slow
def test_groups_redo_feedback_and_what_follows_as_compile_ahead_lists_it(plural_calls):
    run, calls = plural_calls
    assert set(calls.by_stage) == REDONE
    ahead = open_run(run.config, ahead=True)
    for stage in stages_of(run.config):
        if stage.name in calls.by_stage:
            check_listed(calls.by_stage[stage.name], listed(ahead, stage))


@pytest.mark.slow
def test_every_pair_is_labelled_under_the_principles_of_every_group(plural):
    inputs = plural.inputs(pm_train.STAGE)
    found = {group: comparisons_of(inputs, "training", group) for group in FILES}
    nurses, lawyers = (
        [(r.id, r.response_first, r.response_second) for r in found[g]] for g in FILES
    )
    assert nurses == lawyers != []
    for group, rows in found.items():
        whole = load_constitution(ROOT / FILES[group])
        assert {p for r in rows for p in r.principle_ids} <= {p.id for p in whole.feedback}
        assert {row.constitution_sha256 for row in rows} == {whole.content_hash()}
    labels = [[row.probability for row in rows] for rows in found.values()]
    assert labels[0] != labels[1]
    audits = plural.workdir.manifest("feedback")["metrics"]["audit"]
    assert set(audits) == {f"{half}/{g}" for half in ("audit", "development") for g in FILES}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["pm_train", "second_model"])
def test_models_of_groups_differ_by_their_labels_alone(plural, stage):
    folder = plural.workdir.folder(stage)
    one, other = (read_records(folder / g / "harmlessness", TrainingPair) for g in FILES)
    assert [(r.id, r.first, r.second) for r in one] == [(r.id, r.first, r.second) for r in other]
    assert [r.target_ppm for r in one] != [r.target_ppm for r in other]
    one, other = (read_records(folder / g / "helpfulness", TrainingPair) for g in FILES)
    assert one == other
    means = {read_info(folder / g / "checkpoint").score_mean for g in FILES}
    assert len(means) == 2  # each is normalised on its own
    metrics = plural.workdir.manifest(stage)["metrics"]
    assert {"harmlessness_pairs", "score_mean/nurses", "score_mean/lawyers"} <= set(metrics)


@pytest.mark.slow
def test_the_reward_is_that_of_the_group_that_is_worst_off(plural):
    reward = make_reward(plural.inputs(rl.STAGE))
    prompts, replies = [[5, 6, 7]] * 3, ["the good.", None, "a bad idea."]
    by_group = reward.by_group(prompts, replies)
    assert by_group.shape == (2, 3)
    np.testing.assert_array_equal(reward(prompts, replies), min(by_group, key=np.mean))
    alone = [reward.rewards[group](prompts, replies) for group in FILES]
    np.testing.assert_array_equal(by_group, alone)
    assert not np.allclose(*alone)


@pytest.mark.slow
def test_labels_of_two_runs_are_compared_group_by_group(plural):
    rows = read_records(plural.workdir.folder("feedback") / "comparisons" / "nurses", Comparison)
    found = compare(plural, finished_run(plural.workdir.path)).labels
    assert (len(found.pairs), found.unpaired) == (len(rows) * len(FILES), 0)
    assert found.changed.mean == 0


@pytest.mark.slow
def test_the_report_says_who_gains_and_who_loses(plural):
    folder = plural.workdir.folder("report")
    summary = read_summary(folder / "summary.json")
    assert set(summary.groups) == set(FILES)
    found = summary.evaluation.measurements
    for judge in ("score", "second_score"):
        for group in FILES:
            for subject in ("base", "sl_cai", "rl_cai", "rl_cai minus base"):
                assert found[f"groups.{judge}/{subject}/{group}"].low is not None
    worst = found["groups.worst_off/rl_cai"].mean
    assert worst == min(found[f"groups.second_score/rl_cai/{g}"].mean for g in FILES)
    assert {f"labels.accuracy/audit/{g}" for g in FILES} <= set(found)
    assert {f"preference_model.accuracy/helpfulness/{g}" for g in FILES} <= set(found)
    samples = read_records(plural.workdir.folder("evaluate") / "samples", Sample)
    together = lambda row: (row.model, row.set.startswith(ATTACKS))  # what is scored at once
    for key in {together(row) for row in samples}:
        rows = [row for row in samples if together(row) == key]
        for score, given in (("score", "group_scores"), ("second_score", "group_second_scores")):
            by_group = np.array([getattr(row, given) for row in rows]).T
            measured = [row.set in PROMPT_SETS or key[1] for row in rows]  # not what is shown
            worst = by_group[:, measured].mean(axis=1).argmin()
            assert [getattr(row, score) for row in rows] == by_group[worst].tolist()
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "RL climbs the minimum" in page
    assert "RL-CAI minus base: nurses " in page


@pytest.mark.slow
def test_comparisons_without_a_reward_have_the_mean_label(plural, model_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    changes = {**GROUPS, "rl.algorithm": "dpo"}
    inputs = open_run(tiny_config(plural.workdir.path, model_folder, **changes)).inputs(rl.STAGE)
    rows = [comparisons_of(inputs, "training", group) for group in FILES]
    means = {
        one.id: (one.probability + other.probability) / 2 for one, other in zip(*rows, strict=True)
    }
    found = {row.id: row.target for row in rl.make_task(inputs).comparisons()}
    assert {name: found[name] for name in means} == pytest.approx(means)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"constitution.groups": "nurses=none.yaml"}, ConstitutionError, "none.yaml"),
        (
            {**GROUPS, "rl.objective": "minimum", "rl.algorithm": "dpo"},
            ConfigError,
            "config.rl.objective: 'minimum', but dpo",
        ),
        (
            {**GROUPS, "feedback.principles_per_pair": 99},
            ConfigError,
            "principles of the constitution of nurses",
        ),
    ],
)
def test_what_groups_cannot_be_is_refused_before_anything_runs(
    model_folder, tmp_path, monkeypatch, changes, error, told
):
    monkeypatch.chdir(ROOT)
    config = tiny_config(tmp_path / "work", model_folder, **changes)
    with pytest.raises(error, match=told):
        check_inputs(open_run(config), stages_of(config))
