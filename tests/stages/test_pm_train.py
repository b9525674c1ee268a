"""What the preference model is trained on, and how its scores are normalised."""

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from tiny_run import tiny_config

from cai_jax.data.records import Part, read_records, write_records
from cai_jax.data.rows import Reply, TrainingPair
from cai_jax.feedback.targets import with_targets
from cai_jax.stages import pm_train, rl
from cai_jax.stages.engines import make_reward
from cai_jax.stages.pm_train import comparisons_of, gradient_share, normalisation, pair_batches
from cai_jax.stages.stage import open_run

KINDS = ("harmlessness", "helpfulness")


def pair(name, target, weight=1.0):
    return TrainingPair(name, (1, 2), (1, 3, 4), (round(target * 1e6),), (round(weight * 1e6),))


@pytest.mark.parametrize(
    ("weight", "share"),
    [(1.0, 38 / (38 + 5.1)), (5.1 / 38, 0.5), (0.5, 19 / (19 + 5.1))],
)
def test_the_share_of_the_first_gradient(weight, share):
    """76 certain pairs beside 34 labels of mean strength 0.15: METHOD measured 88 %."""
    soft = [pair(f"a{i}", 0.5 + (0.15 if i % 2 else -0.15)) for i in range(34)]
    certain = [pair(f"h{i}", 1.0, weight) for i in range(76)]
    pairs = {"harmlessness": soft, "helpfulness": certain}
    assert gradient_share(pairs, "helpfulness") == pytest.approx(share, abs=1e-6)
    assert gradient_share(pairs, "harmlessness") == pytest.approx(1 - share, abs=1e-6)
    assert gradient_share({"harmlessness": [], "helpfulness": []}, "helpfulness") == 0


def prepared(finished, model_folder, monkeypatch, stage, **changes):
    """A stage's inputs on the folders of a finished run, with another config."""
    monkeypatch.chdir(ROOT)
    return open_run(tiny_config(finished.workdir.path, model_folder, **changes)).inputs(stage)


@pytest.mark.parametrize("labels", ["shuffled", "none"])
def test_labels_reach_training(finished, model_folder, tmp_path, monkeypatch, labels):
    changes = {"pm_train.labels": labels, "pm_train.helpfulness_weight": 0.25}
    inputs = prepared(finished, model_folder, monkeypatch, pm_train.STAGE, **changes)
    outcome = pm_train.execute(inputs, tmp_path)
    comparisons = comparisons_of(inputs, "training")
    own = {row.id: round(row.probability * 1e6) for row in comparisons}
    written = {
        kind: read_records(tmp_path / kind, TrainingPair) if (tmp_path / kind).exists() else []
        for kind in KINDS
    }
    found = {row.id: row.target_ppm[0] for row in written["harmlessness"]}
    if labels == "none":
        assert not found
        assert outcome.metrics["helpfulness_gradient_share"] == 1
    else:
        wanted = with_targets(comparisons, labels, inputs.seed)
        assert found == {row.id: round(target * 1e6) for row, target in wanted}
        assert sorted(found.values()) == sorted(own.values())
    assert {row.weight_ppm for row in written["helpfulness"]} == {(250_000,)}
    assert outcome.metrics["labels"] == labels
    for kind in KINDS:
        assert outcome.metrics[f"{kind}_pairs"] == len(written[kind])
    assert outcome.metrics["score_std"] > 0  # scores are normalised by the samples all the same
    # DPO and IPO learn from the same targets.
    inputs = prepared(finished, model_folder, monkeypatch, rl.STAGE, **changes)
    direct = {row.id: row.target for row in rl.make_task(inputs).comparisons()}
    for name, ppm in found.items():
        assert direct[name] == pytest.approx(ppm / 1e6, abs=1e-6)
    assert len(direct) == sum(map(len, written.values()))


@pytest.mark.parametrize("labels", ["shuffled", "none"])
def test_the_second_model_learns_from_the_labels_themselves(
    finished, model_folder, tmp_path, monkeypatch, labels
):
    """A control of the first model's labels is judged by one that they did not spoil."""
    changes = {"pm_train.labels": labels}
    inputs = prepared(finished, model_folder, monkeypatch, pm_train.SECOND, **changes)
    outcome = pm_train.execute(inputs, tmp_path)
    own = {row.id: round(row.probability * 1e6) for row in comparisons_of(inputs, "second_model")}
    rows = read_records(tmp_path / "harmlessness", TrainingPair)
    assert {row.id: row.target_ppm[0] for row in rows} == own != {}
    assert outcome.metrics["labels"] == "soft"


def test_weights_reach_the_batches(tmp_path, finished):
    settings = finished.config.pm_train
    for kind, weight in zip(KINDS, (1.0, 0.25), strict=True):
        rows = [pair(f"{kind}{i}", 0.75, weight) for i in range(3)]
        write_records(tmp_path / kind, rows, TrainingPair)
    parts = [Part(tmp_path / kind, 3.0) for kind in KINDS]
    weights = np.concatenate(
        [b["weight"] for b in pair_batches("pm_train", parts, settings, 97, 0)]
    )
    assert sorted(weights) == [0, 0, 0.25, 0.25, 0.25, 1, 1, 1]  # two rows fill the last batch
    assert weights.dtype == np.float32


def test_a_finished_run_tells_its_share(finished):
    folder, metrics = (
        finished.workdir.folder("pm_train"),
        finished.workdir.manifest("pm_train")["metrics"],
    )
    trained = {kind: read_records(folder / kind, TrainingPair) for kind in KINDS}
    assert metrics["helpfulness_gradient_share"] == gradient_share(trained, "helpfulness") > 0


SCORES = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=9).map(np.float32)


@given(SCORES, SCORES)
def test_sets_of_prompts_weigh_alike_however_many_they_are(few, many):
    mean, std = normalisation(few, np.repeat(many, 7))
    assert mean == pytest.approx((few.mean() + many.mean()) / 2, abs=1e-4)
    spread = sum(np.mean((s.astype(np.float64) - mean) ** 2) for s in (few, many)) / 2
    assert std == pytest.approx(np.sqrt(spread), abs=1e-4)


def test_of_many_replies_a_sample_is_scored():
    said = {f"r{i}": (i,) for i in range(50)}
    assert pm_train.drawn(said, 50, 0) == list(said.values())
    some = pm_train.drawn(said, 20, 0)
    assert (len(some), some) == (20, sorted(set(some)))
    assert set(pm_train.drawn({**said, "more": (50,)}, 20, 0)) <= {*some, (50,)}


def test_one_set_alone_is_plain_mean_and_deviation():
    assert normalisation(np.float32([1, 3]), np.float32([])) == (2.0, 1.0)


def test_samples_of_both_kinds_are_around_0(finished):
    folder = finished.workdir.folder("feedback")
    reward = make_reward(finished.inputs(rl.STAGE)).rewards[""]
    rows = comparisons_of(finished.inputs(pm_train.STAGE), "training")
    red_team = [ids for row in rows for ids in (row.first, row.second)]
    helpful = [row.tokens for row in read_records(folder / "helpful", Reply)]
    sets = [
        (reward.scorer.preference_scores(ids, "score") - reward.mean) / reward.std
        for ids in (red_team, helpful)
    ]
    assert len(sets[1])
    assert np.mean([s.mean() for s in sets]) == pytest.approx(0, abs=1e-3)
    assert np.mean([np.mean(s**2) for s in sets]) == pytest.approx(1, abs=1e-3)
