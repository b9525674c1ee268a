"""Evaluation of a whole run: what is declared before it is what it measures."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from small_evidence import revision
from tiny_run import tiny_config

from cai_jax.config import ConfigError
from cai_jax.data.records import read_records
from cai_jax.data.rows import Revision
from cai_jax.evaluation.evaluator import Evaluator, policies
from cai_jax.evaluation.measure import Measure
from cai_jax.evaluation.registry import EVALUATORS, declared_keys
from cai_jax.generation.engine import Completion
from cai_jax.prompts.messages import first_user_text
from cai_jax.report.summary import read_summary
from cai_jax.rl.reward import usable
from cai_jax.stages import evaluate, feedback
from cai_jax.stages.checks import check_models
from cai_jax.stages.models import POLICIES
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import fingerprints
from cai_jax.stages.stage import open_run


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_run_measures_what_was_declared_before_it(finished):
    summary = read_summary(finished.workdir.folder("report") / "summary.json")
    declared = declared_keys(evaluate.whole_plan(finished.inputs(evaluate.STAGE)))
    chosen = f"rl_cai_{summary.rl['chosen_iteration']}"  # is RL-CAI itself
    measured = {key for key in declared if chosen not in key}
    assert measured < set(declared)
    found = set(summary.evaluation.measurements)
    assert found <= measured
    # A principle may not have been drawn, not every label has others beside it, and of a few
    # attacks none may be of some strategy.
    may_be_none = ("revision_principles.", "feedback_principles.", "attacks.success/")
    assert {key for key in measured - found if not key.startswith(may_be_none)} == set()
    assert {"feedback_principles.lead/all labels", "feedback_principles.follows/all labels"} < found
    drawn = {row.principle_id for row in revisions_of(finished) if row.round}
    assert {key for key in found if key.startswith("revision_principles.words")} == {
        f"revision_principles.words_changed/{principle}" for principle in drawn
    }
    assert {f"text.finished/{name}/helpful" for name in POLICIES} <= set(declared)
    history = json.loads((finished.workdir.folder("rl") / "history.json").read_text())
    assert summary.evaluation.measurements["rl.kl_k3/last"].mean == history[-1]["kl_k3"]
    audit = summary.feedback["audit"]["audit"]["accuracy"]
    assert summary.evaluation.measurements["labels.accuracy/audit"].mean == audit


@given(prompts=st.integers(1, 30), rounds=st.integers(1, 4), most=st.integers(1, 80))
def test_of_many_revisions_whole_dialogues_are_scored(prompts, rounds, most):
    rows = [revision(f"{p}", r, "a") for r in range(rounds) for p in range(prompts)]
    found = evaluate.some_dialogues(rows, most, 0)
    assert len(found) <= max(most, rounds)
    assert len(found) > most - rounds or found == rows
    assert found == [row for row in rows if row in found]
    assert {row.round for row in found} == set(range(rounds))
    assert len(found) == rounds * len({row.prompt_id for row in found})


def revisions_of(run):
    folder = run.workdir.folder("sl_data")
    return [r for name in ("responses", "revisions") for r in read_records(folder / name, Revision)]


def test_the_page_of_a_run_names_its_policies(finished):
    page = (finished.workdir.folder("report") / "index.html").read_text(encoding="utf-8")
    for label in (policy.label for policy in POLICIES.values()):
        assert f'<span class="who">{label}</span>' in page
    assert "sl_cai" not in page


def test_what_follows_the_last_whole_sentence_is_kept(finished):
    """It is not judged, and a reader sees it all the same."""
    chat = finished.models.chat
    ids = chat.reply_ids("the good. the safe")[:-1]
    cut = Completion(ids, np.zeros(len(ids), np.float32), finished=False)
    reply = usable(chat, cut)
    assert reply.text + evaluate.unjudged(chat, cut, reply) == "the good. the safe"
    assert evaluate.unjudged(chat, cut, reply).strip() == "the safe"
    assert evaluate.unjudged(chat, cut, None) == ""


def judged_by(model_folder, workdir, judge, ahead=False):
    run = open_run(
        tiny_config(workdir, model_folder, **{"evaluate.judge": str(judge)}), ahead=ahead
    )
    return run.inputs(evaluate.STAGE)


def test_a_judge_is_the_feedback_model_by_whatever_path(model_folder, tmp_path, finished):
    other = shutil.copytree(model_folder, tmp_path / "other")
    for name, expected in (
        ("", False),
        (model_folder, True),
        (Path(os.path.relpath(model_folder)), True),
        (finished.workdir.folder("sl_train") / "checkpoint", True),  # the same, with an adapter
        (other, False),
    ):
        found = evaluate._judge_is_feedback(judged_by(model_folder, tmp_path / "run", name))
        assert found == expected, name


def test_another_judge_is_resident_and_listed(model_folder, tmp_path):
    other = shutil.copytree(model_folder, tmp_path / "other")
    sizes = {}
    for judge in ("", other):
        listed = evaluate.programs(judged_by(model_folder, tmp_path / "run", judge, ahead=True))
        labels = [p for p in listed if p.name.startswith("evaluate: win rates")]
        whole = [p for p in labels if not p.name.endswith(("prefix", "rests"))]
        shapes = {program.args[3].shape for program in whole}
        assert len(whole) == (2 if judge else 1) * len(shapes)
        (sizes[judge],) = {len(program.resident) for program in labels}
    assert sizes[other] == sizes[""] + 1


def test_another_attacker_is_resident_while_policies_answer(model_folder, tmp_path):
    sizes = {}
    for attacker in ("", shutil.copytree(model_folder, tmp_path / "other")):
        changes = {"evaluate.attacks": 4, "red_team.source": str(attacker)}
        config = tiny_config(tmp_path / "run", model_folder, **changes)
        listed = evaluate.programs(open_run(config, ahead=True).inputs(evaluate.STAGE))
        responses = [p for p in listed if p.name == "evaluate: responses"]
        (sizes[str(attacker)],) = {len(program.resident) for program in responses}
    assert sizes[str(attacker)] == sizes[""] + 1


def test_an_attacker_keeps_away_from_all_that_models_were_trained_on(finished):
    inputs = finished.inputs(evaluate.STAGE)
    second = finished.inputs(feedback.STAGE).rows("second_model")
    said = {first_user_text(row.messages) for row in second}
    assert said
    assert said <= set(inputs.trained_turns)
    assert set(inputs.turns[True]) < set(inputs.trained_turns)


def test_win_rates_and_elo_of_a_run(finished):
    summary = read_summary(finished.workdir.folder("report") / "summary.json")
    found = summary.evaluation.measurements
    over = found["win_rate.win_rate/rl_cai over base/red_team"]
    prompts, times = finished.config.evaluate.red_team_prompts, 2
    assert (over.n, over.units) == (prompts * times, prompts)
    assert 0 <= over.low <= over.mean <= over.high <= 1
    (other,) = summary.rl["other_iterations"]  # a policy that was kept and not chosen
    elos = [found[f"win_rate.elo/{p}/helpful"].mean for p in (*POLICIES, f"rl_cai_{other}")]
    assert sum(elos) == pytest.approx(0)
    (section,) = [s for s in summary.evaluation.sections if s.name == "win_rate"]
    assert "config.evaluate.judge" in section.warning  # the judge labelled the training pairs


def test_a_new_evaluator_redoes_evaluation_alone(finished, monkeypatch):
    before = fingerprints(finished, stages_of(finished.config))
    measure = Measure("length", "characters", "lower", "of a reply", ("helpful",))
    toy = Evaluator("Toy", policies, lambda plan: (measure,), lambda evidence: [])
    monkeypatch.setitem(EVALUATORS, "toy", toy)
    after = fingerprints(finished, stages_of(finished.config))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"evaluate", "report"}


def test_benchmarks_are_measured_by_category_of_every_model(finished):
    summary = read_summary(finished.workdir.folder("report") / "summary.json")
    found, sizes = summary.evaluation.measurements, {"all": 3, "honest": 2, "kind": 1}
    for name in POLICIES:
        for method in ("multiple_choice", "contrast", "chain_of_thought"):
            accuracy = f"benchmarks.hhh_{method}_accuracy/{name}"
            assert {group: found[f"{accuracy}/{group}"].n for group in sizes} == sizes
        assert found[f"benchmarks.perplexity_likelihood_bits_per_byte/{name}/all"].n == 2
        for reader in ("rule", "model"):
            assert found[f"benchmarks.twins_{reader}_both_right/{name}/all"].n == 2
        harm = {g: found[f"benchmarks.red_team_preference_model_success/{name}/{g}"].n
                for g in ("all", "theft")}  # fmt: skip
        assert harm == {"all": 2, "theft": 1}
    judge = "judge_benchmarks.hhh_preference_model_accuracy/preference model"
    honest, kind = (found[f"{judge}/{group}"].mean for group in ("honest", "kind"))
    assert found[f"{judge}/all"].mean == pytest.approx((2 * honest + kind) / 3)


@pytest.mark.parametrize(
    ("task", "text", "words"),
    [
        ("mmlu", "{}", ["no such task", "hhh", "perplexity"]),
        ("twins", '{"safe": "a"}', ["line 1", "'unsafe'"]),
        ("hhh", '{"prompt": "a", "corrects": "b", "incorrects": []}', ["line 1", "0 wrong"]),
        ("hhh", None, ["no such file"]),
    ],
)
def test_bad_benchmarks_are_refused_by_their_field(tmp_path, model_folder, task, text, words):
    file = tmp_path / "items.jsonl"
    if text:
        file.write_text(text)
    config = tiny_config(tmp_path / "w", model_folder, **{"evaluate.benchmarks": f"{task}={file}"})
    with pytest.raises(ConfigError) as error:
        evaluate.plan_of(config, ("",))
    assert str(error.value).startswith(f"config.evaluate.benchmarks.{task}: ")
    assert all(word in str(error.value) for word in words)


def test_what_benchmarks_ask_serves_evaluation_alone(tmp_path, model_folder, monkeypatch):
    monkeypatch.chdir(ROOT)
    turns = open_run(tiny_config(tmp_path / "w", model_folder)).data.turns
    asked = {turn.text for turn in turns if turn.purpose == "evaluation"}
    assert {"why do you help", "why do you harm", "what harm can one time of this do"} <= asked


def test_a_method_that_no_benchmark_has_is_refused(tmp_path, model_folder):
    config = tiny_config(tmp_path / "w", model_folder, **{"evaluate.benchmark_methods": "guess"})
    with pytest.raises(
        ConfigError, match=r"benchmark_methods: no task has a method 'guess'; known"
    ):
        evaluate.plan_of(config, ("",))


def test_an_item_that_no_model_has_room_for_is_refused_before_anything_runs(tmp_path, model_folder):
    file = tmp_path / "items.jsonl"
    row = {"prompt": "how " * 900, "chosen": "so", "rejected": "not"}
    file.write_text(json.dumps({**row, "prompt": "how"}) + "\n" + json.dumps(row))
    config = tiny_config(tmp_path / "w", model_folder, **{"evaluate.benchmarks": f"hhh={file}"})
    with pytest.raises(ConfigError, match=r"benchmarks\.hhh: .*jsonl, line 2: \d+ tokens"):
        check_models(open_run(config))


def test_another_item_redoes_evaluation_alone(finished, tmp_path):
    file = tmp_path / "items.jsonl"
    text = (ROOT / "tests" / "few_choices.jsonl").read_text()
    prints = []
    for own in (text, text.replace("time and food", "food"), text.replace('"kind"', '"safe"')):
        file.write_text(own)
        changed = replace(finished.config.evaluate, benchmarks={"hhh": str(file)})
        config = replace(finished.config, evaluate=changed)
        prints.append(fingerprints(replace(finished, config=config), stages_of(config)))
    one, *others = prints
    for other in others:
        assert {name for name in one if one[name] != other[name]} == {"evaluate", "report"}
