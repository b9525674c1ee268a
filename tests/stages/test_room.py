"""Rows that a model has no room for, or cannot read, are told before the first stage."""

import json
import logging
from pathlib import Path

import pytest
from conftest import ROOT, SHARED
from tiny_run import tiny_config

from cai_jax.config import ConfigError
from cai_jax.prompts.chat import ChatFormat, Reading
from cai_jax.stages.checks import check_models
from cai_jax.stages.feedback import STAGE as FEEDBACK
from cai_jax.stages.lengths import lengths_of
from cai_jax.stages.rl import STAGE as RL
from cai_jax.stages.rl import make_task
from cai_jax.stages.sl_data import STAGE as SL_DATA
from cai_jax.stages.stage import open_run

CASES = SHARED / "cases"
ALTERNATES = (
    "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate') }}{% endif %}<|im_start|>{{ m['content'] }} "
    "<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>{% endif %}"
)


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(logging.getLogger("cai_jax"), "propagate", True)


@pytest.fixture
def opened(model_folder, tmp_path):
    """Opens runs of the tiny model, or of another."""

    def open_with(model=model_folder, **changes):
        quiet = {
            "red_team.rounds": 0,
            "evaluate.attacks": 0,
            "evaluate.benchmarks": "",
            "model.system_prompt": "",
        }
        return open_run(tiny_config(tmp_path / "work", model, **{**quiet, **changes}))

    return open_with


def with_template(folder, template):
    if template.endswith(".jinja"):
        template = (CASES / template).read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


def longer(tmp_path, file, change):
    """A file of datasets/, each row changed; the first of them is on line 1."""
    rows = [json.loads(line) for line in (ROOT / "datasets" / file).read_text().splitlines()]
    path = tmp_path / file
    path.write_text("".join(json.dumps(row | change(row)) + "\n" for row in rows))
    return str(path)


LONG = "food " * 400


@pytest.mark.parametrize(
    ("field", "file", "change", "words"),
    [
        ("red_team_prompts", "red_team_prompts.jsonl", {"prompt": LONG}, "longest response"),
        ("helpful_prompts", "helpful_prompts.jsonl", {"prompt": LONG}, "longest response"),
        ("harmlessness_pairs", "harmlessness_pairs.jsonl", {"rejected": LONG}, "principle"),
        ("helpfulness_pairs", "helpfulness_pairs.jsonl", {"chosen": LONG}, "longer reply|pm_train"),
        ("twins", "twins.jsonl", {"unsafe": LONG}, "longest response"),
        ("evasiveness", "evasiveness.jsonl", {"reply": LONG}, "classes of replies"),
        ("demonstrations", "demonstrations.jsonl", {"revision": LONG}, "warm_up"),
    ],
)
def test_whatever_is_too_long_is_told_with_its_line(opened, tmp_path, field, file, change, words):
    known = lambda row: {
        name: f"{row['id']} {text}" for name, text in change.items() if name in row
    }
    path = longer(tmp_path, file, known)
    with pytest.raises(ConfigError, match=rf"{file}, line \d+, row .*(?:{words}).*leave_out"):
        check_models(opened(**{f"data.{field}": path, "warm_up.epochs": 1}))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sl_data.few_shots": 2}, "few-shots, request and replies, but .*context_tokens is 384"),
        ({"feedback.method": "multiple_choice", "feedback.few_shots": 2}, "principle, few-shots"),
        ({"feedback.method": "chain_of_thought", "feedback.reasoning_tokens": 300}, "principle"),
        ({"evaluate.attacks": 2, "red_team.few_shots": 40}, "red_team.few_shots and attack_tokens"),
        (
            {"red_team.rounds": 1, "pm_train.sequence_length": 216},
            "^the longest prompt of red_team.*pm_train.sequence_length is 216",
        ),
        (
            {"rl.prompt_tokens": 8},
            "rl.prompt_tokens: 8, but of the prompts for training in .* the shortest has",
        ),
    ],
)
def test_what_the_run_adds_to_a_row_is_measured_too(opened, changes, words):
    check_models(opened())
    with pytest.raises(ConfigError, match=words):
        check_models(opened(**changes))


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
def test_an_overlong_prompt_is_left_out_and_counted_where_the_config_says_so(
    opened, tmp_path, caplog
):
    path = tmp_path / "helpful.jsonl"
    odd = (CASES / "overlong_held_out_prompt.jsonl").read_text()
    path.write_text(odd + (ROOT / "datasets" / "helpful_prompts.jsonl").read_text())
    with pytest.raises(ConfigError, match=rf"{path}, line 1, row long: \d+ tokens"):
        check_models(opened(**{"data.helpful_prompts": str(path)}))
    run = opened(**{"data.helpful_prompts": str(path), "data.overlong": "leave_out"})
    purpose = next(p for p in ("training", "development", "evaluation") if any(
        row.id == "long" for row in run.data.of("helpful_prompts", p)
    ))  # fmt: skip
    before = len(run.data.of("helpful_prompts", purpose))
    check_models(run)
    assert run.data.left_out["helpful_prompts"] == {"long"}
    assert len(run.data.of("helpful_prompts", purpose)) == before - 1
    assert "1 rows are left out" in caplog.text
    assert f"{path}, line 1, row long" in caplog.text


def odd(row_id):
    return ord(row_id[-1]) % 2


def half_too_long(tmp_path, file, field):
    """A file of datasets/ in which rows with an odd id are too long."""

    def change(row):
        return {field: f"{row['id']} {LONG}"} if field in row and odd(row["id"]) else {}

    return longer(tmp_path, file, change)


def test_rows_that_move_up_for_those_that_were_left_out_are_measured_too(opened, tmp_path):
    path = half_too_long(tmp_path, "helpful_prompts.jsonl", "prompt")
    run = opened(**{"data.helpful_prompts": path, "data.overlong": "leave_out"})
    before = {row.id for row in run.inputs(SL_DATA).rows("helpful")}
    check_models(run)
    after = run.inputs(SL_DATA).rows("helpful")
    assert len(after) == len(before)
    assert {row.id for row in after} - before  # moved up
    assert run.data.left_out["helpful_prompts"] - before  # would have
    for stage in (SL_DATA, FEEDBACK):
        rows = run.inputs(stage).rows("helpful")
        assert not any(LONG in message.text for row in rows for message in row.messages)


def test_no_row_is_measured_again_because_another_was_left_out(opened, tmp_path, monkeypatch):
    measured, lengths = [], ChatFormat.lengths

    def counted(chat, readings):
        measured.extend(readings)
        return lengths(chat, readings)

    monkeypatch.setattr(ChatFormat, "lengths", counted)
    check_models(opened())
    all_fit = len(measured)
    files = {
        f"data.{name}": half_too_long(tmp_path, f"{name}.jsonl", field)
        for name, field in {"helpful_prompts": "prompt", "evasiveness": "reply"}.items()
    }
    measured.clear()
    run = opened(**files, **{"data.overlong": "leave_out"})
    check_models(run)
    assert run.data.left_out.keys() >= {"helpful_prompts", "evasiveness"}
    assert len(measured) < 1.5 * all_fit


def test_rows_that_leave_too_few_are_told(opened):
    changes = {"data.overlong": "leave_out", "generation.context_tokens": 80}
    with pytest.raises(ConfigError, match=r"config\.\S+: \d+, but datasets/\S+ has \d+ rows for"):
        check_models(opened(**changes))


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
def test_a_method_that_the_template_refuses_is_told_with_those_that_work(opened, folder):
    model = with_template(folder, "refuses_system.jinja")
    changes = {"feedback.few_shots": 0, "data.overlong": "leave_out"}  # rows with system messages
    check_models(opened(model, **changes, **{"feedback.method": "multiple_choice"}))
    with pytest.raises(ConfigError) as error:
        check_models(opened(model, **changes, **{"feedback.method": "contrast"}))
    assert "config.feedback.method: " in str(error.value)
    assert str(folder) in str(error.value)
    assert "set it to multiple_choice or chain_of_thought" in str(error.value)
    with pytest.raises(ConfigError, match=r"config\.model\.system_prompt: .*; empty it"):
        check_models(opened(model, **{"model.system_prompt": "be kind"}))


@pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
@pytest.mark.parametrize("field", ["model.source", "feedback.source", "evaluate.judge"])
def test_a_template_that_leaves_texts_out_is_told(opened, folder, field):
    model = with_template(folder, "wants_content_list.jinja")
    with pytest.raises(ValueError, match=rf"config\.{field}: {folder}: .*list of parts"):
        check_models(opened(**{field: str(model)}))


def with_system_messages(tmp_path):
    """Half of the helpfulness prompts begin with one."""

    def change(row):
        if "prompt" not in row or not int(row["id"][-1]) % 2:
            return {}
        said = [
            {"role": "system", "content": "be kind"},
            {"role": "user", "content": row["prompt"]},
        ]
        return {"prompt": said}

    return longer(tmp_path, "helpful_prompts.jsonl", change)


def test_a_row_that_the_template_refuses_is_told_or_left_out(opened, folder, tmp_path):
    path = with_system_messages(tmp_path)
    model = with_template(folder, ALTERNATES)
    changes = {"data.helpful_prompts": path, "feedback.method": "multiple_choice"}
    changes |= {"feedback.few_shots": 0}
    with pytest.raises(
        ConfigError, match=r"line \d+, row .*roles must alternate; .* change the row"
    ):
        check_models(opened(model, **changes))
    run = opened(model, **changes, **{"data.overlong": "leave_out"})
    check_models(run)
    rows = {row.id: row for row in run.data.rows("helpful_prompts")}
    left_out = run.data.left_out["helpful_prompts"]
    assert left_out
    assert all(rows[id_].messages[0].role == "system" for id_ in left_out)
    assert all(row.messages[0].role == "user" for row in run.inputs(SL_DATA).rows("helpful"))


def test_prompts_that_rl_alone_reads_are_rendered_too(opened, folder):
    """It draws from the whole file, other stages from its first rows."""
    model, method = with_template(folder, ALTERNATES), {"feedback.method": "multiple_choice"}
    check_models(opened(model, stages="sl_data,feedback", **method))
    with pytest.raises(ConfigError, match=r"red_team_prompts\.jsonl, line .*roles must alternate"):
        check_models(opened(model, stages="rl", **method))


def test_lengths_are_those_of_the_ids(opened, monkeypatch):
    monkeypatch.setattr("cai_jax.stages.lengths.BATCH", 7)
    run = opened()
    chat, rows = run.models.chat, run.data.rows("helpfulness_pairs")[:20]
    readings = [Reading(row.messages, "so", (row.chosen, row.rejected)) for row in rows]
    assert lengths_of(chat, readings) == [
        len(chat.prompt_ids(r.messages, "so"))
        + max(len(chat.reply_ids(text)) for text in r.replies)
        for r in readings
    ]
    for tokens in (1, 40, 333):
        assert len(chat.reply_ids(chat.filler(tokens))) == tokens + 1


def test_prompts_of_two_files_never_share_an_id(opened, tmp_path):
    """The scores of a prompt's replies are compared by its id, and records are known by it."""
    prompt = opened().inputs(SL_DATA).rows("red_team")[0]
    file = tmp_path / "attacks.jsonl"
    helpful = longer(
        tmp_path, "helpful_prompts.jsonl", lambda row: {"id": f"{prompt.id}{row['id']}"}
    )
    text = Path(helpful).read_text().splitlines()
    first = opened(**{"data.helpful_prompts": helpful}).inputs(RL).rows("helpful")[0]
    changed = [json.loads(line) for line in text]
    same = [row | {"id": prompt.id} if row["id"] == first.id else row for row in changed]
    Path(helpful).write_text("".join(json.dumps(row) + "\n" for row in same))
    attack = {"id": prompt.id, "prompt": "how can I talk to people so that they harm ?"}
    file.write_text(json.dumps(attack) + "\n")
    run = opened(**{"data.red_team_attacks": str(file), "data.helpful_prompts": helpful})
    for stage in (SL_DATA, FEEDBACK):
        assert [a.id for a in run.inputs(stage).attacks] == [f"{prompt.id}+"]
    red_team, helpful = make_task(run.inputs(RL)).prompts()
    ids = [p.id for p in (*red_team, *helpful)]
    assert len(ids) == len(set(ids))
    assert prompt.id in ids
    assert {f"{prompt.id}+", f"{prompt.id}++"} < set(ids)
