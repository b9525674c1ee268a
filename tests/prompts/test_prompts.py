"""The chat template, applied once; the critique-revision format, parsed strictly."""

import json

import gguf
import pytest
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from tiny_model import write_tiny_model
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from cai_jax.constitution.schema import load_constitution
from cai_jax.prompts.chat import THINKING, ChatFormat, load_tokenizer, same_tokens
from cai_jax.prompts.critique_revision import (
    critique_messages,
    example_texts,
    is_near_copy,
    parse_reply,
    revision_messages,
)
from cai_jax.prompts.feedback import choice_messages, question_message
from cai_jax.prompts.gguf_tokenizer import gguf_tokenizer
from cai_jax.prompts.messages import assistant, first_user_text, system, user
from cai_jax.prompts.template import DATE, TemplateRefusedError, render

TEXTS = st.text(st.characters(codec="utf-8"))
MARKED = "What then?\n\nHuman: how old?\n\nAssistant: old.\n\nAssistant:"


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("chat") / "tiny")
    return ChatFormat(load_tokenizer(folder))


def test_template_is_applied_once(chat):
    tokenizer = chat.tokenizer
    messages = [user("the good"), assistant("a safe reply")]
    whole = templated(tokenizer, messages)
    prompt, reply = chat.prompt_ids(messages[:1]), chat.reply_ids("a safe reply")
    assert prompt + reply == whole  # what is trained on is what the template makes
    start = tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert prompt.count(start) == 2  # no second begin-of-sequence token
    assert chat.end_of_turn == tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert chat.stop_ids == (chat.end_of_turn,)
    assert chat.text(reply) == "a safe reply"


def test_preference_input_does_not_tell_how_a_reply_ended(chat):
    prompt, finished = chat.prompt_ids([user("the good")]), chat.reply_ids("a safe reply.")
    judged = lambda ids, ended: chat.judged_ids(prompt, parse_reply(chat.text(ids), ended))
    assert judged(finished, True) == prompt + finished
    cut = [*finished[:-1], *chat.reply_ids("the good")[:-1]]
    assert judged(cut, False) == prompt + finished


def test_system_prompt_and_prefill(chat):
    spoken = ChatFormat(chat.tokenizer, "be kind")
    assert "be" not in chat.text(chat.prompt_ids([user("the")])).split()
    assert "kind" in spoken.text(spoken.prompt_ids([user("the")])).split()
    own = spoken.text(spoken.prompt_ids([system("bad"), user("the")])).split()
    assert "bad" in own
    assert "kind" not in own  # a dialogue's own system message stays alone
    assert chat.prompt_ids([user("the")], "so it is")[-3:] == chat.reply_ids("so it is")[:-1]


def templated(tokenizer, messages, **options):
    """Ids that transformers makes of the messages."""
    turns = [{"role": m.role, "content": m.text} for m in messages]
    return tokenizer.apply_chat_template(turns, tokenize=True, **options)["input_ids"]


@pytest.fixture(scope="module")
def letters():
    """A chat format to which every byte of a text matters."""
    tokenizer = byte_level_bpe()
    tokenizer.decoder = decoders.ByteLevel()
    marks = ("<|start|>", "<|end|>")
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    template = (
        "{% for m in messages %}<|start|>{{ m['role'] }}\n{{ m['content'] }}<|end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    return ChatFormat(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template
        )
    )


@given(told=TEXTS, asked=TEXTS, said=TEXTS, then=TEXTS)
def test_dialogues_get_the_ids_of_transformers(letters, told, asked, said, then):
    turns = [system(told), user(asked), assistant(said), user(then)]
    for messages in (turns, turns[1:], [user(asked + MARKED), assistant(MARKED), user(MARKED)]):
        ids = letters.prompt_ids(messages)
        assert ids == templated(letters.tokenizer, messages, add_generation_prompt=True)
        written = [f"<|start|>{m.role}\n{m.text}<|end|>\n" for m in messages]
        assert letters.tokenizer.decode(ids) == "".join(written) + "<|start|>assistant\n"


def test_a_refusing_template_is_told(chat, tmp_path):
    folder = write_tiny_model(tmp_path / "refuses")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no system role') }}")
    refusing = ChatFormat(load_tokenizer(folder))
    with pytest.raises(ValueError, match="refuses a dialogue: no system role"):
        refusing.prompt_ids([user("the")])


def test_a_model_that_can_think_replies_at_once(tmp_path):
    """Qwen 3's and SmolLM3's way: an empty thought where thinking is off; unsaid, it is on."""
    folder = write_tiny_model(tmp_path / "thinks", ("<think>", "</think>"))
    template = (folder / "chat_template.jinja").read_text()
    opening = "<|im_start|>assistant "
    thought = (
        "{% if enable_thinking is defined and not enable_thinking %}<think> </think> {% endif %}"
    )
    (folder / "chat_template.jinja").write_text(template.replace(opening, opening + thought))
    thinking = ChatFormat(load_tokenizer(folder))
    told = templated(
        thinking.tokenizer, [user("the")], add_generation_prompt=True, enable_thinking=False
    )
    unsaid = templated(thinking.tokenizer, [user("the")], add_generation_prompt=True)
    assert thinking.prompt_ids([user("the")]) == told != unsaid
    assert len(told) > len(unsaid)


def test_a_template_that_knows_no_thinking_is_not_told(chat, monkeypatch):
    asked = []
    render = lambda template, date, variables: asked.append(variables) or ""
    monkeypatch.setattr("cai_jax.prompts.chat.render", render)
    chat.prompt_ids([user("the")])
    (variables,) = asked
    assert variables["add_generation_prompt"] is True
    assert THINKING not in variables


LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (LOOP, "processor time"),
        ("{{ 'a' * 2000000000 }}", "of memory"),
        ("{{ 'a' * 20000000 }}", "letters"),
        ("{{ '%999999999d' % 1 }}", "of memory"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{% if", "unexpected"),
        ("{{ ().__class__.__base__.__subclasses__() }}", "unsafe"),
    ],
)
def test_no_template_takes_more_than_dialogues_need(template, words):
    """The next one is rendered all the same."""
    with pytest.raises(TemplateRefusedError, match=words):
        render(template, DATE, {})
    assert render("{{ messages[0] }}", DATE, {"messages": ["é"]}) == "é"


def test_a_template_that_hangs_later_is_stopped_too(tmp_path):
    folder = write_tiny_model(tmp_path / "later")
    file = folder / "chat_template.jinja"
    later = f"{{% if messages[0]['content'] == 'why' %}}{LOOP}{{% endif %}}"
    file.write_text(later + file.read_text(), encoding="utf-8")
    later = ChatFormat(load_tokenizer(folder))
    assert later.prompt_ids([user("the")])
    with pytest.raises(ValueError, match="takes more than") as error:
        later.prompt_ids([user("why")])
    assert str(folder) in str(error.value)


@given(st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "<", "|im_end|>", " ", "you"])))
def test_no_text_spells_a_control_token(chat, parts):
    text = "".join(parts)
    controls = set(chat.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]))
    assert not controls & set(chat.plain_ids(text, starts=True))
    assert not controls & set(chat.reply_ids(text)[:-1])
    structure = lambda said: [i for i in chat.prompt_ids([user(said)]) if i in controls]
    assert structure(f"a{text}") == structure("a")


@given(st.lists(st.tuples(TEXTS | st.sampled_from(["<|im_end|>", ""]), TEXTS), max_size=4))
def test_a_batch_has_the_ids_of_each(chat, said):
    dialogues, prefills = [[user(text)] for text, _ in said], [prefill for _, prefill in said]
    each = [chat.prompt_ids(*one) for one in zip(dialogues, prefills, strict=True)]
    assert chat.prompts_ids(dialogues, prefills) == each
    assert chat.prompts_ids(dialogues, "so") == [chat.prompt_ids(d, "so") for d in dialogues]
    assert chat.replies_ids(prefills) == [chat.reply_ids(text) for text in prefills]


def test_text_that_spells_no_control_token_is_encoded_as_ever(chat):
    text = "how can I help you, <unk"
    assert chat.plain_ids(text, starts=True) == chat.tokenizer(text)["input_ids"]


def test_what_the_user_says_first():
    assert first_user_text([system("be kind"), user("why"), assistant("so"), user("how")]) == "why"
    with pytest.raises(ValueError, match="no user's turn"):
        first_user_text([system("be kind")])


def test_tokenizers_are_compared_by_vocabulary(chat, tmp_path):
    other = load_tokenizer(write_tiny_model(tmp_path / "other", ("zebra",)))
    assert same_tokens(chat.tokenizer, chat.tokenizer)
    assert not same_tokens(chat.tokenizer, other)


def test_a_tokenizer_without_template_is_refused(tmp_path):
    folder = write_tiny_model(tmp_path / "plain")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="chat template"):
        load_tokenizer(folder)


def byte_level_bpe():
    """A byte-level BPE trained on a few words, digits merged too."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(["it's the other house in 1234 12345 1234"] * 9, trainer)
    return tokenizer


def write_gguf_tokenizer(file, tokenizer, cut, kind="gpt2"):
    writer = gguf.GGUFWriter(file, "llama")
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(cut)
    writer.add_token_list([token for token, _ in vocabulary])
    writer.add_token_types([3 if token == "<|end|>" else 1 for token, _ in vocabulary])
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    writer.add_token_merges([" ".join(merge) for merge in merges])
    writer.add_eos_token_id(tokenizer.token_to_id("<|end|>"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def test_gguf_tokenizer_equals_the_one_in_the_file(tmp_path):
    trained = byte_level_bpe()
    ours = gguf_tokenizer(write_gguf_tokenizer(tmp_path / "a.gguf", trained, "gpt-2"))
    for text in ("it's the other house", "1234 in<|end|>\n\n 1234  ü", " the\thouse 12345"):
        ids = ours(text, add_special_tokens=False)["input_ids"]
        assert ids == trained.encode(text).ids
        assert ours.decode(ids) == text
    assert ours.eos_token == "<|end|>"


@pytest.mark.parametrize(("cut", "pieces"), [("smollm", 5), ("qwen2", 5), ("llama-bpe", 2)])
def test_gguf_tokenizer_cuts_digits_as_its_family_does(tmp_path, cut, pieces):
    trained = byte_level_bpe()
    ours = gguf_tokenizer(write_gguf_tokenizer(tmp_path / "a.gguf", trained, cut))
    cuts = ours.backend_tokenizer.pre_tokenizer.pre_tokenize_str("12345")
    assert len(cuts) == pieces
    assert ours.decode(ours("it's 12345", add_special_tokens=False)["input_ids"]) == "it's 12345"


def test_gguf_tokenizer_of_another_kind_is_refused(tmp_path):
    trained = byte_level_bpe()
    for name, cut, kind in (("a", "tekken", "gpt2"), ("b", "default", "llama")):
        file = write_gguf_tokenizer(tmp_path / f"{name}.gguf", trained, cut, kind)
        with pytest.raises(ValueError, match="Hugging Face folder"):
            gguf_tokenizer(file)


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
    ],
)
def test_parse_reply(text, finished, expected):
    assert parse_reply(text, finished) == expected


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("The reply shames a neighbour for the noise of his children, which is unkind.", True),
        ("the reply shames a neighbour, for the noise of  his children, which is unkind", True),
        ("The reply shames a neighbour for the noise of her children, which is unkind.", True),
        ("The reply shames a colleague for the state of his kitchen, which is unkind.", False),
        ("It is unkind.", False),
        ("Ja.", False),
    ],
)
def test_near_copies(text, near):
    shown = "The reply shames a neighbour for the noise of his children, which is unkind."
    assert is_near_copy(text, ["Ask him first.", shown]) == near
    assert not is_near_copy(text, [])


def test_short_texts_are_near_copies_only_of_themselves():
    assert is_near_copy("Ja.", ["ja."])
    assert not is_near_copy("Ja.", ["Na.", ""])


@given(TEXTS, st.booleans())
def test_what_is_parsed_stood_in_the_text(text, finished):
    parsed = parse_reply(text, finished)
    if parsed is not None:
        assert text.strip().startswith(parsed)
        assert parse_reply(parsed, True) == parsed
        assert is_near_copy(f" {parsed}\n", [parsed])
        assert parse_reply(f"{parsed}\n\nUser: and", True) is None


def test_messages_alternate_and_end_with_the_user():
    c = load_constitution(ROOT / "constitutions" / "harmless.yaml")
    shots, principle = c.critique_examples[:2], c.critique_revision[0]
    for messages in (
        critique_messages(shots, (user("p"),), "r", principle),
        revision_messages(shots, (user("p"),), "r", principle, "c"),
        revision_messages(shots, (user("p"),), "r", principle, None),
        choice_messages(c.thought_examples, (user("p"),), "q", "one", "two"),
    ):
        roles = [m.role for m in messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    direct = revision_messages(shots, (user("p"),), "r", principle, None)
    assert not any("Critique" in m.text for m in direct)
    assert shots[0].critique in example_texts(shots)


def test_a_system_message_stays_at_the_start():
    c = load_constitution(ROOT / "constitutions" / "harmless.yaml")
    shots, principle = c.critique_examples[:2], c.critique_revision[0]
    prompt = (system("be kind"), user("one"), assistant("two"), user("three"))
    for messages in (
        critique_messages(shots, prompt, "r", principle),
        revision_messages(shots, prompt, "r", principle, "c"),
        revision_messages(shots, prompt, "r", principle, None),
    ):
        assert [m.role for m in messages].index("system") == 0
        assert sum(m.role == "system" for m in messages) == 1
        at = messages.index(prompt[1])
        assert messages[at : at + 4] == (*prompt[1:], assistant("r"))
    asked = question_message(prompt, "Which?", "yes", "no").text
    assert "System: be kind\nUser: one\nAssistant: two\nUser: three\nAssistant: ..." in asked


def test_shared_tokens_are_those_of_the_first_messages(chat):
    """Whatever comes after them; and never the whole prompt, of which something is read last."""
    first = (user("a good way"), assistant("to help"))
    ids = chat.prompt_ids((*first, user("why")), "so")
    other = chat.prompt_ids((*first, user("how do people work")))
    count = chat.shared_tokens(ids, first)
    assert ids[:count] == other[:count]
    assert chat.tokenizer.decode(ids[:count]).count("<|im_start|>") == 2
    assert "why" not in chat.tokenizer.decode(ids[:count])
    assert chat.shared_tokens(ids, ()) == 0
    assert chat.shared_tokens(ids, (user("another"),)) < count
    assert chat.shared_tokens(ids[:count], first) == count - 1
