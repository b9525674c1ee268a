"""Every file of ../shared/data/cases has the answer that its README asks for."""

import logging
import shutil

import pytest
from conftest import SHARED
from tiny_model import write_tiny_model

from cai_jax.data.jsonl import jsonl_rows
from cai_jax.data.readers import read_pairs, read_prompts
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, load_tokenizer, open_chat
from cai_jax.prompts.messages import system, user
from cai_jax.stages.data import repeated

CASES = SHARED / "cases"
pytestmark = pytest.mark.skipif(not CASES.is_dir(), reason="no ../shared/data/cases")
HI = (user("how can I help ?"),)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("cases") / "tiny")


def chat_with(model, tmp_path, template):
    folder = shutil.copytree(model, tmp_path / "model")
    shutil.copy(CASES / template, folder / "chat_template.jinja")
    return ChatFormat(load_tokenizer(folder)), folder


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("hh_other_prompt_for_rejected.jsonl", "different prompts"),
        ("hh_reply_holds_human_turn.jsonl", "end with what the user says"),
        ("pairs_identical.jsonl", "sides are the same"),
    ],
)
def test_pairs_that_tell_nothing_are_counted(tmp_path, file, words, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("cai_jax"), "propagate", True)
    odd = (CASES / file).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{file}: all its pairs are left out: .*{words}"):
        read_pairs(CASES / file)
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n' + odd, encoding="utf-8")
    assert len(read_pairs(path)) == 1
    assert f"{odd.count(chr(10))} pairs are left out: " in caplog.text
    assert f"{words} (the first is on line 2)" in caplog.text


def test_turns_of_one_speaker_are_joined():
    for pair in read_pairs(CASES / "hh_assistant_twice.jsonl"):
        roles = [message.role for message in pair.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
        assert pair.messages[1].text == "wait\n\nagain"


def test_a_prompt_beside_whole_dialogues_is_refused_with_its_line():
    with pytest.raises(ValueError, match=r"dialogues\.jsonl, line 1: .*whole dialogue beside"):
        read_pairs(CASES / "prompt_and_whole_dialogues.jsonl")


@pytest.mark.parametrize(
    ("file", "answer"),
    [
        ("blank_line.jsonl", ["how can I help ?", "the food"]),
        ("bom.jsonl", ["how can I help ?"]),
        ("latin1.jsonl", r"latin1\.jsonl, line 1: not UTF-8"),
        ("lone_surrogate.jsonl", r"lone_surrogate\.jsonl, line 1: half of a surrogate pair"),
    ],
)
def test_odd_lines_have_one_answer(file, answer):
    if isinstance(answer, list):
        assert [p.messages[0].text for p in read_prompts(CASES / file)] == answer
        return
    with pytest.raises(ValueError, match=answer):
        read_prompts(CASES / file)


def test_ids_of_repeats_are_nobody_elses():
    prompts = read_prompts(CASES / "ids_1_and_1.1.jsonl")
    ids = [prompt.id for prompt in repeated(prompts, 3)]
    assert len(set(ids)) == 3 * len(prompts)
    one, other = prompts  # which the split may part: their records are one dataset still
    again = repeated([one], 2, [other])
    ids = [prompt.id for prompt in (*again, *repeated([other], 2, again))]
    assert ids == ["1", "1.1+", "1.1", "1.1.1"]


def test_text_stays_text(model):
    chat = ChatFormat(load_tokenizer(model))
    _, row = jsonl_rows(CASES / "control_tokens_in_text.jsonl")
    ids = chat.prompt_ids((user(row.text("prompt")),))
    plain = chat.prompt_ids(HI)
    for control in ("<|im_start|>", "<|im_end|>"):
        one = chat.tokenizer.convert_tokens_to_ids(control)
        assert ids.count(one) == plain.count(one)
        assert chat.reply_ids(row.text("completion")).count(one) == (control == "<|im_end|>")


def test_a_template_without_system_role_is_named(model, tmp_path):
    chat, folder = chat_with(model, tmp_path, "refuses_system.jinja")
    assert chat.prompt_ids(HI)
    with pytest.raises(ValueError, match="System role not supported") as error:
        chat.prompt_ids((system("kind"), *HI))
    assert str(folder) in str(error.value)


def test_a_template_that_wants_parts_is_named(model, tmp_path):
    chat, folder = chat_with(model, tmp_path, "wants_content_list.jinja")
    with pytest.raises(ValueError, match="list of parts") as error:
        _ = chat.end_of_turn
    assert str(folder) in str(error.value)


def test_the_date_in_prompts_is_the_runs(model, tmp_path):
    chat, _ = chat_with(model, tmp_path, "date_in_prompt.jinja")
    text = lambda date: ChatFormat(chat.tokenizer, date=date)._template(HI, False)
    assert " 26 " in text("2024-07-26")
    assert " 09 " in text("2024-07-09")


def test_a_tokenizer_of_a_newer_library_is_named(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    shutil.copy(CASES / "tokenizer_of_newer_library.json", folder / "tokenizer.json")
    with pytest.raises(
        ValueError, match=r"tokenizer\.json: no tokenizer that can be read"
    ) as error:
        load_tokenizer(folder)
    assert "\n" not in str(error.value)


def test_several_end_tokens_are_read(model, tmp_path):
    folder = shutil.copytree(model, tmp_path / "model")
    shutil.copy(CASES / "generation_config_two_eos.json", folder / "generation_config.json")
    assert open_chat(ModelSource(folder)).stop_ids == ModelSource(folder).stop_ids == (2, 5)
