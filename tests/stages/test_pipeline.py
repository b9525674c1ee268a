"""The whole pipeline on a tiny random model, sharded over eight devices."""

import gc
import json

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import ROOT
from tiny_run import tiny_config

from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Revision
from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.rl import loop
from cai_jax.rl.loop import Limits
from cai_jax.rl.prompts import Drawn, PromptPool
from cai_jax.rl.watch import Alarms
from cai_jax.stages import feedback, rl, sl_train, training
from cai_jax.stages.engines import make_reward
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.stage import open_run
from cai_jax.stages.training import packed_tokens


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def changed(finished, model_folder):
    """A stage's inputs in the finished run, with changes to its config."""

    def inputs(stage, **changes):
        return open_run(tiny_config(finished.workdir.path, model_folder, **changes)).inputs(stage)

    return inputs


def test_every_stage_leaves_a_manifest(finished):
    for stage in stages_of(finished.config):
        manifest = finished.workdir.manifest(stage.name)
        assert manifest["stage"] == stage.name
        assert manifest["constitution_sha256"] == finished.data.constitution.content_hash()
        assert manifest["seconds"] > manifest["compile_seconds"] >= 0
        assert (manifest["tokens"] > 0) == (stage.name != "report")


def test_records_carry_their_origin(finished):
    folder = finished.workdir.folder("sl_data") / "revisions"
    rows = read_records(folder, Revision)
    constitution, chat = finished.data.constitution, finished.models.chat
    known = {p.id for p in constitution.critique_revision}
    assert len(tfds.builder_from_directory(folder / "1.0.0").as_dataset(split="train")) == len(rows)
    for row in rows:
        assert row.constitution_sha256 == constitution.content_hash()
        assert row.principle_id in known
        assert row.round >= 1
        assert len(row.tokens) == len(row.loss_mask)
        assert (row.loss_mask[0], row.loss_mask[-1]) == (0, 1)
        assert row.tokens[-1] == chat.end_of_turn


def test_replies_that_do_not_parse_earn_a_fixed_score(finished):
    reward, prompt = make_reward(finished.inputs(rl.STAGE)), [5, 6, 7]
    scores = reward([prompt] * 3, [None, "the good.", None])
    assert scores[0] == scores[2] == finished.config.rl.unusable_score
    alone = reward([prompt], ["the good."])
    assert scores[1] == pytest.approx(alone[0], abs=1e-4)
    assert scores[1] != scores[0]


def test_rl_samples_the_full_distribution(changed, monkeypatch):
    asked = {}

    def generate(self, prompts, keys, max_new_tokens, sampling, name, shared=None):
        asked.update(keys=keys, sampling=sampling, stop_ids=self.stop_ids)
        raise InterruptedError

    monkeypatch.setattr(Generator, "generate", generate)
    same_prompt = [Drawn("a", [5]), Drawn("a", [5])]
    monkeypatch.setattr(PromptPool, "draw", lambda self, iteration: same_prompt)
    inputs = changed(rl.STAGE)
    with pytest.raises(InterruptedError):
        rl.execute(inputs, inputs.whole_run.workdir.open_partial("rl"))
    assert asked["sampling"] == Sampling(inputs.config.rl.temperature)
    assert (asked["sampling"].top_k, asked["sampling"].top_p) == (0, 1.0)
    assert (asked["keys"][0] != asked["keys"][1]).any()  # the same prompt twice in a batch


LIMITS = Limits(
    first_ratio_error=0.1,
    rounding=1e-5,
    alarms=Alarms(kl=50.0, sampler_gap=0.05, degenerate=0.9),
    missing_stop_penalty=0.75,
    unusable_penalty=1.0,
)


def good_scalars():
    return {"first_ratio_error": 0.0, "first_approx_kl": 0.0}


@pytest.mark.parametrize("field", ["first_ratio_error", "first_approx_kl"])
def test_a_first_minibatch_that_is_off_stops_the_run(finished, field):
    loop.check(good_scalars(), 0, LIMITS)
    with pytest.raises(FloatingPointError, match="max_first_ratio_error"):
        loop.check(good_scalars() | {field: 0.2}, 0, LIMITS)
    history = json.loads((finished.workdir.folder("rl") / "history.json").read_text())
    assert all(iteration[field] <= 1e-5 for iteration in history)


def test_responses_without_a_stop_pay(finished):
    reward = make_reward(finished.inputs(rl.STAGE))
    ids = finished.models.chat.reply_ids("the good.")
    logprobs = np.zeros(len(ids), np.float32)
    ended = [Completion(ids, logprobs, True), Completion(ids[:-1], logprobs[:-1], False)]
    batch = [Drawn("a", [5]), Drawn("a", [5])]
    replies, scores = loop.score(reward, batch, ended, LIMITS)
    assert replies[0].ids == replies[1].ids
    np.testing.assert_allclose(scores[0] - scores[1], 0.75, rtol=1e-5)


@pytest.mark.parametrize("method", ["multiple_choice", "chain_of_thought"])
def test_other_feedback_methods(changed, tmp_path, method):
    inputs = changed(
        feedback.STAGE,
        **{
            "feedback.method": method,
            "feedback.principles_per_pair": 2,
            "feedback.audit_pairs": 4,
            "feedback.reasoning_tokens": 4,
            "feedback.few_shots": 0,
        },
    )
    outcome = feedback.execute(inputs, tmp_path)
    assert 0 <= outcome.metrics["audit"]["audit"]["picks_option_a"] <= 1
    if method == "chain_of_thought":
        assert outcome.metrics["label_strength"] <= 0.1 + 1e-6
    for row in read_records(tmp_path / "comparisons", Comparison):
        assert len(row.thoughts) == (4 if method == "chain_of_thought" else 0)


def live_arrays():
    gc.collect()
    return {id(x): x for x in jax.live_arrays()}


def test_training_keeps_one_copy_of_what_it_trains(changed, tmp_path, monkeypatch):
    inputs = changed(sl_train.STAGE, **{"sl_train.lora.rank": 0, "sl_train.trained_layers": 0})
    before = live_arrays()

    def train(update, state, *_):
        new = [x for i, x in live_arrays().items() if i not in before and x.ndim]
        # Parameters and two moments of each.
        assert len(new) == 3 * len(jax.tree.leaves(state.params))
        raise InterruptedError

    monkeypatch.setattr(training, "train", train)
    with pytest.raises(InterruptedError):
        sl_train.execute(inputs, tmp_path)


def test_a_stage_leaves_nothing_on_the_devices(changed, tmp_path):
    before = live_arrays()
    sl_train.execute(changed(sl_train.STAGE), tmp_path)
    assert not [x for i, x in live_arrays().items() if i not in before and x.ndim]


def test_an_offloaded_preference_model_takes_no_device_memory(changed):
    """Not even its frozen base."""
    before = live_arrays()
    inputs = changed(rl.STAGE, **{"rl.offload": True})
    assert inputs.whole_run.config.pm_train.lora.rank
    reward = make_reward(inputs)
    left = [x for i, x in live_arrays().items() if i not in before]
    assert {x.sharding.memory_kind for x in left if x.size > 2} == {"pinned_host"}
    assert np.isfinite(reward([[5, 6, 7]], ["the good."])).all()


def test_rows_that_only_fill_a_batch_are_no_tokens():
    rows = {"tokens": np.ones((2, 5), int), "segments": np.ones((2, 5), int)}
    mask = np.array([[0, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    assert packed_tokens(rows | {"loss_mask": mask}) == 5


def test_full_finetuning_changes_the_weights(changed, finished, tmp_path):
    inputs = changed(sl_train.STAGE, **{"sl_train.lora.rank": 0, "sl_train.trained_layers": 0})
    sl_train.execute(inputs, tmp_path)
    models = inputs.models
    trained = models.policy(models.source(str(tmp_path / "checkpoint")))
    base = models.policy(models.source())
    same = [
        bool((a == b).all())
        for a, b in zip(jax.tree.leaves(trained.params), jax.tree.leaves(base.params), strict=True)
    ]
    assert not all(same)
