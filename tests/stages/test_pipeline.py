"""The whole pipeline on a tiny random model, sharded over eight devices."""

import gc
import json
import os
import re
from dataclasses import replace

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from cai_jax.feedback.labelers import Comparison, Judgement
from cai_jax.stages.plan import Plan
from cai_jax.stages.run import Run
from conftest import ROOT
from tiny_run import STAGES, run_all, tiny_config

from cai_jax.config import ConfigError
from cai_jax.data.readers import Prompt
from cai_jax.generation.engine import Completion
from cai_jax.generation.sampling import Sampling
from cai_jax.models.io.load import forget_pretrained
from cai_jax.report.page import Transcript, TranscriptStep, render_page
from cai_jax.stages import evaluate, feedback, pm_train, rl, sl_data, sl_train, training
from cai_jax.stages.checks import check_inputs, check_models
from cai_jax.stages.runner import claim_workdir, fingerprints, read_manifest, run_stages
from cai_jax.stages.training import packed_tokens


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_summary_and_report(finished):
    summary = json.loads((finished.workdir / "report" / "summary.json").read_text())
    assert set(summary["stages"]) == {s.name for s in STAGES} - {"report"}
    assert all(s["tokens"] > 0 and s["seconds"] > 0 for s in summary["stages"].values())
    assert summary["supervision"]["human_harm_labels_trained_on"] == 0
    assert set(summary["evaluation"]["models"]) == {"base", "sl_cai", "rl_cai"}
    assert summary["feedback"]["audit"]["audit"]["pairs"] == 4
    assert summary["constitution"]["sha256"] == finished.constitution.content_hash()
    page = (finished.workdir / "report" / "index.html").read_text(encoding="utf-8")
    for prompt in evaluate.SHOWN_PROMPTS:
        assert prompt.text.replace("'", "&#39;") in page
    assert page.count("<svg") == 4
    loaded = re.findall(r"""(?:src|href)=["']?(?!#)""", page.replace('xlink:href="#', ""))
    assert not loaded  # self-contained


def test_model_text_is_escaped(finished):
    evil = "<script>alert('x')</script>"
    answers = [{"model": "base", "response": evil, "finished": True}]
    page = render_page(
        summary=json.loads((finished.workdir / "report" / "summary.json").read_text()),
        history=json.loads((finished.workdir / "rl" / "history.json").read_text()),
        shown=[{"prompt": evil, "answers": answers}],
        held_out=[{"prompt": evil, "answers": answers}],
        transcripts=[Transcript(evil, evil, [TranscriptStep("kind", evil, evil, evil)])],
    )
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") == 9


def test_records_carry_their_origin(finished):
    builder = tfds.builder_from_directory(finished.workdir / "sl_data" / "revisions" / "1.0.0")
    for row in tfds.as_numpy(builder.as_dataset(split="train")):
        assert row["constitution_sha256"].decode() == finished.constitution.content_hash()
        assert row["principle_id"].decode() in {
            p.id for p in finished.constitution.critique_revision
        }
        assert row["round"] >= 1
        assert len(row["tokens"]) == len(row["loss_mask"])
        assert row["loss_mask"][0] == 0
        assert row["loss_mask"][-1] == 1
        assert row["tokens"][-1] == finished.chat.end_of_turn


def refuse(stages):
    """The same stages, none of which may run."""

    def refusal(name):
        def fail(run, folder):
            raise AssertionError(f"{name} was run again")

        return fail

    return [replace(stage, run=refusal(stage.name)) for stage in stages]


def test_a_finished_run_is_not_run_again(finished, in_root):
    run_stages(Run(finished.config), refuse(STAGES))


def test_a_change_reruns_only_what_depends_on_it(finished, model_folder, in_root):
    changed = tiny_config(finished.workdir, model_folder, **{"rl.kl_coef": 0.5})
    with pytest.raises(ConfigError, match=r"config.rl.kl_coef: 0\.\d+ there, 0.5 here"):
        claim_workdir(Run(changed))
    upstream = refuse([sl_data.STAGE, sl_train.STAGE, feedback.STAGE, pm_train.STAGE])
    with pytest.raises(AssertionError, match="rl was run again"):
        run_stages(Run(changed), [*upstream, *refuse([rl.STAGE])])


def test_runs_share_what_they_have_in_common(model_folder, tmp_path, in_root):
    """Through the store: the second run repeats no stage, a third only what it changes."""
    shared = {"stage_store": str(tmp_path / "stages"), "stages": "sl_data,sl_train"}
    config = lambda name, **changes: tiny_config(tmp_path / name, model_folder, **shared, **changes)
    run_all(config("one"))
    second = Run(config("deeper/two"))
    run_stages(second, refuse(STAGES))
    policy = second.source(str(second.checkpoint("sl_train")))
    assert policy.path.samefile(model_folder)
    kept = {p: p.read_bytes() for p in (tmp_path / "stages").rglob("*") if p.is_file()}
    third = Run(config("three", **{"sl_train.learning_rate": 1e-4}))
    run_stages(third, [refuse(STAGES)[0], *STAGES[1:]])
    assert read_manifest(third, "sl_train") != read_manifest(second, "sl_train")
    assert all(p.read_bytes() == content for p, content in kept.items())
    # A stage that is redone in its workdir leaves the store's copy alone.
    changed = {"sl_train.learning_rate": 2e-4, "rerun_changed": True}
    run_stages(Run(config("one", **changed)), STAGES)
    assert all(p.read_bytes() == content for p, content in kept.items())


def test_a_file_redoes_only_the_stages_that_read_it(model_folder, tmp_path, in_root):
    def prints(**changes):
        run = Run(tiny_config(tmp_path, model_folder, **changes))
        return fingerprints(run, STAGES)

    pairs = tmp_path / "pairs.jsonl"
    text = (ROOT / "datasets" / "helpfulness_pairs.jsonl").read_text(encoding="utf-8")
    pairs.write_text(text[: text.rindex("{")], encoding="utf-8")
    before, after = prints(), prints(**{"data.helpfulness_pairs": str(pairs)})
    same = {name for name in before if before[name] == after[name]}
    assert same == {"sl_data", "sl_train", "feedback"}


def test_the_first_principles_alone(model_folder, tmp_path, in_root):
    few = {"constitution.critique_principles": 2, "constitution.feedback_principles": 1}
    whole, some = (Run(tiny_config(tmp_path, model_folder, **c)) for c in ({}, few))
    assert some.constitution.critique_revision == whole.constitution.critique_revision[:2]
    assert some.constitution.feedback == whole.constitution.feedback[:1]
    assert some.constitution.content_hash() != whole.constitution.content_hash()
    too_many = {"constitution.feedback_principles": 99}
    with pytest.raises(ConfigError, match=r"config.constitution.feedback_principles: 99, but"):
        check_inputs(Run(tiny_config(tmp_path, model_folder, **too_many)))


@pytest.mark.parametrize(("probability", "target"), [(0.9, 1.0), (0.2, 0.0), (0.5, 0.5)])
def test_hard_labels(finished, model_folder, in_root, probability, target):
    judgement = Judgement(np.array([probability]), np.array([probability]))
    comparison = Comparison("a", "Hi?", "One.", "Two.", ())
    for labels, expected in (("soft", probability), ("hard", target)):
        run = Run(tiny_config(finished.workdir, model_folder, **{"feedback.labels": labels}))
        assert feedback._row(run, comparison, judgement)["target_ppm"] == [expected * 1e6]


def test_replies_that_do_not_parse_earn_a_fixed_score(finished, in_root):
    reward, prompt = rl.Reward(Run(finished.config)), [5, 6, 7]
    scores = reward([prompt] * 3, [None, "the good.", None])
    assert scores[0] == scores[2] == finished.config.rl.unusable_score
    alone = reward([prompt], ["the good."])
    assert scores[1] == pytest.approx(alone[0], abs=1e-4)
    assert scores[1] != scores[0]


def test_ppo_samples_the_full_distribution(finished, in_root):
    asked = {}

    class Spy:
        def generate(self, prompts, keys, max_new_tokens, sampling, name):
            asked.update(keys=keys, sampling=sampling)

    batch = [(Prompt("a", "Hi?"), [5]), (Prompt("a", "Hi?"), [5])]
    rl._respond(Run(finished.config), Spy(), batch, 0)
    assert asked["sampling"] == Sampling(finished.config.rl.temperature)
    assert (asked["sampling"].top_k, asked["sampling"].top_p) == (0, 1.0)
    assert (asked["keys"][0] != asked["keys"][1]).any()  # the same prompt twice in a batch


def good_scalars():
    return {"first_ratio_error": 0.0, "first_approx_kl": 0.0, "sampler_gap_mean": 0.0}


@pytest.mark.parametrize("field", ["first_ratio_error", "first_approx_kl"])
def test_a_first_minibatch_that_is_off_stops_the_run(finished, in_root, field):
    run = Run(finished.config)
    assert finished.config.rl.max_first_ratio_error == 1e-5
    rl._check(run, good_scalars(), 0)
    with pytest.raises(FloatingPointError, match="max_first_ratio_error"):
        rl._check(run, good_scalars() | {field: 2e-5}, 0)
    history = json.loads((finished.workdir / "rl" / "history.json").read_text())
    assert all(iteration[field] <= 1e-5 for iteration in history)


def test_a_sampler_that_differs_is_told(finished, in_root, caplog):
    run = Run(finished.config)
    rl._check(run, good_scalars() | {"sampler_gap_mean": run.config.rl.max_sampler_gap / 2}, 3)
    assert not caplog.records
    rl._check(run, good_scalars() | {"sampler_gap_mean": run.config.rl.max_sampler_gap * 2}, 3)
    assert "max_sampler_gap" in caplog.text


def test_metrics_weigh_by_tokens():
    metrics = {"ratio": np.array([1.0, 2.0]), "weight": np.array([30.0, 10.0])}
    means = rl._weighted_means(metrics | {"grad_norm": np.array([0.1, 0.4])})
    assert means == {"ratio": 1.25, "grad_norm": 0.4}


def test_responses_without_a_stop_pay(model_folder, tmp_path, in_root):
    run = Run(tiny_config(tmp_path, model_folder, **{"rl.missing_stop_penalty": 0.75}))
    whole, cut = (Completion([5, 2], np.zeros(2, np.float32), stopped) for stopped in (True, False))
    scores = rl._scores(run, np.array([1.0, 1.0], np.float32), [whole, cut])
    np.testing.assert_allclose(scores, [1.0, 0.25])


def test_a_replaced_model_is_another_model(finished, model_folder, in_root):
    before = fingerprints(Run(finished.config), STAGES)
    file = model_folder / "model.safetensors"
    status = file.stat()
    os.utime(file, ns=(0, 0))
    after = fingerprints(Run(finished.config), STAGES)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert all(before[stage.name] != after[stage.name] for stage in STAGES)
    assert fingerprints(Run(finished.config), STAGES) == before


def test_a_stage_without_its_inputs_is_refused(tmp_path, model_folder, in_root):
    config = tiny_config(tmp_path / "fresh", model_folder, stages="rl")
    with pytest.raises(ConfigError, match="stage rl needs sl_train"):
        run_stages(Run(config), STAGES)


@pytest.mark.parametrize("method", ["multiple_choice", "chain_of_thought"])
def test_other_feedback_methods(finished, model_folder, in_root, method):
    changed = tiny_config(
        finished.workdir,
        model_folder,
        **{
            "feedback.method": method,
            "feedback.principles_per_pair": 2,
            "feedback.audit_pairs": 4,
            "feedback.reasoning_tokens": 4,
            "rerun_changed": True,
        },
    )
    folder = finished.workdir / method
    folder.mkdir()
    outcome = feedback.run(Run(changed), folder)
    assert 0 <= outcome.metrics["audit"]["audit"]["picks_option_a"] <= 1
    if method == "chain_of_thought":
        assert outcome.metrics["label_strength"] <= 0.1 + 1e-6


def live_arrays():
    forget_pretrained()
    gc.collect()
    return {id(x): x for x in jax.live_arrays()}


def test_training_keeps_one_copy_of_what_it_trains(
    finished, model_folder, in_root, tmp_path, monkeypatch
):
    fields = {"sl_train.lora.rank": 0, "sl_train.trained_layers": 0}
    run = Run(tiny_config(finished.workdir, model_folder, **fields))
    before = live_arrays()

    def train(run, folder, name, trainable, *rest):
        new = [x for i, x in live_arrays().items() if i not in before and x.ndim]
        assert len(new) == len(jax.tree.leaves(trainable.params))
        raise InterruptedError

    monkeypatch.setattr(sl_train, "train", train)
    with pytest.raises(InterruptedError):
        sl_train.run(run, tmp_path)


def test_a_preference_model_that_waits_takes_no_device_memory(finished, model_folder, in_root):
    """Not even its frozen base, which is read once for several stages."""
    before = live_arrays()
    run = Run(tiny_config(finished.workdir, model_folder, **{"rl.offload": True}))
    assert run.config.pm_train.lora.rank
    reward = rl.Reward(run)
    left = [x for i, x in live_arrays().items() if i not in before]
    assert {x.sharding.memory_kind for x in left if x.size > 2} == {"pinned_host"}
    assert np.isfinite(reward([[5, 6, 7]], ["the good."])).all()


def test_rows_that_do_not_split_over_the_devices_are_told(model_folder, tmp_path, in_root, caplog):
    check_models(Run(tiny_config(tmp_path, model_folder)))
    assert not caplog.records
    check_models(Run(tiny_config(tmp_path, model_folder, **{"sl_train.batch_size": 6})))
    assert "config.sl_train.batch_size: 6 rows at once do not split over 4 devices" in caplog.text


@pytest.mark.parametrize("changes", [{}, {"rl.lora.rank": 0, "rl.trained_layers": 0}], ids=str)
def test_what_is_compiled_ahead_is_what_runs(
    finished, model_folder, in_root, tmp_path, monkeypatch, changes
):
    """Every array that a real update is called with: its shape, its type and its place."""
    run = Run(tiny_config(finished.workdir, model_folder, **changes))
    planned = {step.function.__name__: step for m in (sl_train, rl) for step in m.steps(Plan(run))}
    ran = {}

    def spy(module, name):
        function = getattr(module, name)

        def call(*args, **static):
            ran.setdefault(name, jax.tree.map(described, args))
            return function(*args, **static)

        monkeypatch.setattr(module, name, call)

    def described(x):
        where = {}
        if x.size > 2 and hasattr(x, "sharding"):  # scalars and keys come from the host
            where = x.sharding.devices_indices_map(x.shape)
        return f"{x.dtype}{x.shape} {sorted((d.id, str(part)) for d, part in where.items())}"

    spy(rl, "prepare")
    spy(rl, "update")
    spy(training, "train_step")
    for stage in (sl_train, rl):
        (tmp_path / stage.STAGE.name).mkdir()
        stage.run(run, tmp_path / stage.STAGE.name)
    assert set(ran) == {"prepare", "update", "train_step"}
    for name, args in ran.items():
        wanted = jax.tree.map(described, planned[name].args)
        assert jax.tree.leaves(args) == jax.tree.leaves(wanted), name


def test_rows_that_only_fill_a_batch_are_no_tokens():
    rows = {"tokens": np.ones((2, 5), int), "segments": np.ones((2, 5), int)}
    mask = np.array([[0, 1, 1, 1, 1], [0, 0, 0, 0, 0]])
    assert packed_tokens(rows | {"loss_mask": mask}) == 5


def test_full_finetuning(finished, model_folder, in_root, tmp_path):
    fields = {"sl_train.lora.rank": 0, "sl_train.trained_layers": 0}
    changed = tiny_config(finished.workdir, model_folder, **fields)
    run = Run(changed)
    sl_train.run(run, tmp_path)
    trained = run.policy(run.source(str(tmp_path / "checkpoint")))
    base = run.policy(run.source(""))
    same = [
        (a == b).all()
        for a, b in zip(
            (v[...] for v in trained.params.flat_state().leaves),
            (v[...] for v in base.params.flat_state().leaves),
            strict=True,
        )
    ]
    assert not all(same)
