"""The warm-up: what its demonstrations become, and who speaks with the adapter."""

import pytest
from conftest import ROOT
from tiny_run import tiny_config

from cai_jax.config import ConfigError
from cai_jax.data.readers import ChoiceDemonstration, RevisionDemonstration
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Revision, TrainingDialogue
from cai_jax.models.io.checkpoint import read_info
from cai_jax.prompts.messages import user
from cai_jax.stages.checks import check_inputs, check_models
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import fingerprints, run_stages
from cai_jax.stages.stage import open_run
from cai_jax.stages.warm_up import rows_of

ASK = (user("how"),)
REVISED = RevisionDemonstration("r", ASK, "bad way", "what is bad ?", "the way", "so ?", "good way")
UNTIL_FEEDBACK = ("warm_up", "sl_data", "sl_train", "feedback")
# Of a random model's replies, few parse.
MORE = {"sl_data.red_team_prompts": 16, "feedback.prompts": 16, "second_model.prompts": 32}
CHOSEN = ChoiceDemonstration("c", ASK, "who is kind ?", "harm", "help", "B", "harm is not kind .")


@pytest.fixture
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_critique_and_revision_are_learned_and_the_reply_is_not(model_folder, tmp_path):
    chat = open_run(tiny_config(tmp_path, model_folder)).models.chat
    (row,) = rows_of(chat, [REVISED])
    learned = chat.text([t for t, m in zip(row.tokens, row.loss_mask, strict=True) if m])
    given = chat.text([t for t, m in zip(row.tokens, row.loss_mask, strict=True) if not m])
    assert "the way" in learned
    assert "good way" in learned
    assert "bad way" in given
    assert "bad way" not in learned
    assert "what is bad" in given


def test_a_choice_is_learned_in_both_orders(model_folder, tmp_path):
    chat = open_run(tiny_config(tmp_path, model_folder)).models.chat
    rows = {row.id: row for row in rows_of(chat, [CHOSEN])}
    assert set(rows) == {"c/choice", "c/swapped", "c/reasoned"}
    said = {
        name: chat.text([t for t, m in zip(row.tokens, row.loss_mask, strict=True) if m])
        for name, row in rows.items()
    }
    assert said["c/choice"] != said["c/swapped"]
    assert "kind" in said["c/reasoned"]
    assert "kind" not in said["c/choice"]


def test_the_critic_speaks_and_base_answers(model_folder, tmp_path, in_root):
    """Once trained here, and once from the adapter that this left: the same texts."""
    shown = ROOT / "tests" / "few_demonstrations.jsonl"
    own = {"warm_up.epochs": 1, "warm_up.lora.rank": 2, "data.demonstrations": str(shown)}
    config = tiny_config(tmp_path / "own", model_folder, **own, **MORE)
    run, stages = open_run(config), stages_of(config)
    check_inputs(run, stages)
    run.workdir.claim(config)
    run_stages(run, [s for s in stages if s.name in UNTIL_FEEDBACK])
    folder = run.workdir.folder("warm_up")
    assert len(read_records(folder / "dialogues", TrainingDialogue)) >= 4
    assert read_info(folder / "checkpoint").lora.rank == 2
    adapter = str(folder / "checkpoint")
    records = run.workdir.folder("sl_data")
    assert {r.model for r in read_records(records / "responses", Revision)} == {str(model_folder)}
    assert {r.model for r in read_records(records / "revisions", Revision)} == {adapter}
    compared = read_records(run.workdir.folder("feedback") / "comparisons", Comparison)
    assert {row.feedback_model for row in compared} == {adapter}

    again = {"warm_up.source": adapter, "data.demonstrations": str(shown)}
    config = tiny_config(tmp_path / "again", model_folder, **again, **MORE)
    other, stages = open_run(config), stages_of(config)
    assert "warm_up" not in [stage.name for stage in stages]
    other.workdir.claim(config)
    run_stages(other, [s for s in stages if s.name == "sl_data"])
    texts = lambda r: {
        row.id: row.response
        for row in read_records(r.workdir.folder("sl_data") / "revisions", Revision)
    }
    assert texts(other) == texts(run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"warm_up.source": "a", "warm_up.epochs": 1}, "warm_up.source: a, but .*epochs"),
        ({"warm_up.epochs": 1, "warm_up.lora.rank": 0}, "warm_up.lora.rank: 0"),
        ({"warm_up.epochs": 1, "warm_up.micro_batches": 3}, "warm_up.batch_size: 4 is not"),
    ],
)
def test_contradictions_are_refused_by_field(tmp_path, model_folder, changes, words):
    with pytest.raises(ConfigError, match=words):
        tiny_config(tmp_path, model_folder, **changes)


def test_a_folder_that_is_no_adapter_is_refused_by_its_field(tmp_path, model_folder):
    run = open_run(tiny_config(tmp_path, model_folder, **{"warm_up.source": str(model_folder)}))
    with pytest.raises(ConfigError, match=r"config\.warm_up\.source: .*adapter_config\.json"):
        _ = run.models.critic_source


def test_an_adapter_of_another_model_is_refused_before_anything_runs(
    tmp_path, model_folder, in_root
):
    shipped = "adapters/smollm2-135m-instruct"
    run = open_run(tiny_config(tmp_path, model_folder, **{"warm_up.source": shipped}))
    with pytest.raises(ConfigError, match=r"warm_up\.source: .*safetensors.*Empty the field"):
        check_models(run)


def test_another_demonstration_redoes_what_the_critic_says(tmp_path, model_folder, in_root):
    shown = ROOT / "tests" / "few_demonstrations.jsonl"
    file, prints = tmp_path / "shown.jsonl", []
    for text in (shown.read_text(), shown.read_text().replace("good way", "kind way")):
        file.write_text(text)
        own = {"warm_up.epochs": 1, "data.demonstrations": str(file)}
        config = tiny_config(tmp_path / "w", model_folder, **own)
        prints.append(fingerprints(open_run(config), stages_of(config)))
    one, other = prints
    assert "warm_up" in one
    assert {name for name in one if one[name] != other[name]} == set(one)


def test_a_demonstration_that_says_what_evaluation_asks_is_refused(tmp_path, model_folder, in_root):
    row = (ROOT / "tests" / "few_demonstrations.jsonl").read_text().splitlines()[0]
    said = "Why is it important to eat socks after meditating?"
    file = tmp_path / "shown.jsonl"
    file.write_text(row.replace('"how"', f'"{said}"'))
    own = {"warm_up.epochs": 1, "data.demonstrations": str(file)}
    config = tiny_config(tmp_path / "w", model_folder, **own)
    with pytest.raises(ConfigError, match=r"demonstrations.*eat socks"):
        check_inputs(open_run(config), stages_of(config))
