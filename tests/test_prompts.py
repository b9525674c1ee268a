"""The chat template, applied once; the critique-revision format, parsed strictly."""

import pytest
from conftest import ROOT
from tiny_model import write_tiny_model

from cai_jax.constitution.schema import load_constitution
from cai_jax.prompts.chat import ChatFormat, assistant, load_tokenizer, same_tokens, user
from cai_jax.prompts.critique_revision import (
    critique_messages,
    example_texts,
    parse_reply,
    revision_messages,
)
from cai_jax.prompts.feedback import choice_messages


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("chat") / "tiny")
    return ChatFormat(load_tokenizer(folder))


def test_template_is_applied_once(chat):
    tokenizer = chat.tokenizer
    messages = [user("the good"), assistant("a safe reply")]
    whole = tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
    prompt, reply = chat.prompt_ids(messages[:1]), chat.reply_ids("a safe reply")
    assert prompt + reply == whole  # what is trained on is what the template makes
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert prompt.count(start) == 2  # no second begin-of-sequence token
    assert chat.end_of_turn == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.stop_ids == (chat.end_of_turn,)
    assert chat.text(reply) == "a safe reply"


def test_preference_input_does_not_tell_how_a_reply_ended(chat):
    prompt, finished = chat.prompt_ids([user("the good")]), chat.reply_ids("a safe reply")
    assert chat.judged_ids(prompt, chat.reply_text(finished)) == prompt + finished
    cut = chat.reply_ids("a safe reply. the good")[:-1]
    assert chat.reply_text(cut) == "a safe reply."
    assert chat.reply_text([*cut, chat.end_of_turn]) == "a safe reply. the good"
    assert chat.reply_text(finished[:-1]) == "a safe reply"  # no whole sentence: as it is
    assert chat.judged_ids(prompt, chat.reply_text([])) == [*prompt, chat.end_of_turn]


def test_system_prompt_and_prefill(chat):
    spoken = ChatFormat(chat.tokenizer, "be kind")
    assert "be" not in chat.text(chat.prompt_ids([user("the")])).split()
    assert "kind" in spoken.text(spoken.prompt_ids([user("the")])).split()
    assert "bad" in spoken.text(spoken.prompt_ids([user("the")], system="bad")).split()
    assert chat.prompt_ids([user("the")], "so it is")[-3:] == chat.reply_ids("so it is")[:-1]


def test_tokenizers_are_compared_by_vocabulary(chat, tmp_path):
    other = load_tokenizer(write_tiny_model(tmp_path / "other", ("zebra",)))
    assert same_tokens(chat.tokenizer, chat.tokenizer)
    assert not same_tokens(chat.tokenizer, other)


def test_a_tokenizer_without_template_is_refused(tmp_path):
    folder = write_tiny_model(tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="chat template"):
        load_tokenizer(folder)


@pytest.mark.parametrize(
    ("text", "finished", "expected"),
    [
        ("It is unkind.", True, "It is unkind."),
        ("no full stop", True, "no full stop"),
        ("One. Two is cut", False, "One."),
        ('He said "no." And then', False, 'He said "no."'),
        ("never ends", False, None),
        ("Do this:\n\n1. Wash.\n2.", False, "Do this:\n\n1. Wash."),
        ("It was 1999. And", False, "It was 1999."),
        ("", True, None),
        ("...", True, None),
        ("Fine. Revision: more", True, None),
        ("Fine.\nUser: and", True, None),
        ("A few-shot's words.", True, None),
    ],
)
def test_parse_reply(text, finished, expected):
    assert parse_reply(text, finished, ["A few-shot's words."]) == expected


def test_messages_alternate_and_end_with_the_user():
    c = load_constitution(ROOT / "constitutions" / "harmless.yaml")
    shots, principle = c.critique_examples[:2], c.critique_revision[0]
    for messages in (
        critique_messages(shots, "p", "r", principle),
        revision_messages(shots, "p", "r", principle, "c"),
        revision_messages(shots, "p", "r", principle, None),
        choice_messages(c.thought_examples, "p", "q", "one", "two"),
    ):
        roles = [m["role"] for m in messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    direct = revision_messages(shots, "p", "r", principle, None)
    assert not any("Critique" in m["content"] for m in direct)
    assert shots[0].critique in example_texts(shots)
