"""Where a reply ends, and whether a model embeds what its tokenizer writes: one definition each."""

import json

import gguf
import pytest
from gguf_files import write_gguf
from tiny_model import SPECIALS, WORDS, random_weights
from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerFast

from cai_jax.generation.engine import Completion
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, check_embedded, load_tokenizer, open_chat
from cai_jax.prompts.messages import user
from cai_jax.rl.reward import usable

START, END = 1, 2  # ids of the tiny model
FOOD = len(SPECIALS) + WORDS.index("food")


def say(folder, name, **fields):
    """Changes fields of a JSON file of a model."""
    file = folder / name
    before = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(before | fields))
    return folder


def reply_of(chat, ids):
    return usable(chat, Completion(ids, None, finished=True))


def test_all_ends_that_the_model_states_end_a_reply_and_are_no_text(folder):
    say(folder, "generation_config.json", eos_token_id=[END, START, FOOD])
    chat = open_chat(ModelSource(folder))
    assert chat.stop_ids == (END, START, FOOD)
    said = chat.reply_ids("it is good")[:-1]
    assert chat.text([*said, FOOD]) == chat.text(said) == "it is good"
    for end in chat.stop_ids:
        reply = reply_of(chat, [*said, end])
        assert reply.text == "it is good"
        assert reply.ids == [
            *said,
            END,
        ]  # what is judged and trained on ends as the template has it
        assert reply_of(chat, [end, *said, end]) is None


def test_an_end_of_turn_that_is_not_flagged_special_ends_a_reply(folder):
    """Some tokenizers flag none but the end of text."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    size = tokenizer.get_vocab_size()
    tokenizer.add_tokens([AddedToken("<|eot|>", special=False)])
    tokenizer.add_special_tokens([AddedToken("<|eos|>", special=True)])
    template = load_tokenizer(folder).chat_template.replace("<|im_end|>", "<|eot|>")
    chat = ChatFormat(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|eos|>", chat_template=template
        )
    )
    assert chat.end_of_turn == size
    assert chat.stop_ids == (size, size + 1)
    said = chat.reply_ids("it is good")
    assert said[-1] == size
    assert chat.text(said) == "it is good"
    assert reply_of(chat, said).text == "it is good"
    assert reply_of(chat, [size, *said]) is None
    assert size not in chat.reply_ids("so <|eot|> it")[:-1]


def test_a_model_in_which_nothing_ends_a_reply_is_told(folder):
    say(folder, "tokenizer_config.json", eos_token=None)
    (folder / "chat_template.jinja").write_text(
        "{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    with pytest.raises(ValueError, match=rf"{folder}: no token ends a reply"):
        _ = open_chat(ModelSource(folder)).stop_ids
    say(folder, "generation_config.json", eos_token_id=FOOD)
    chat = open_chat(ModelSource(folder))
    assert (chat.stop_ids, chat.reply_ids("so")[-1]) == ((FOOD,), FOOD)


@pytest.mark.parametrize(
    ("file", "fields", "words"),
    [
        ("generation_config.json", {"eos_token_id": [2, 999]}, "eos_token_id is 999, but"),
        ("config.json", {"eos_token_id": 999}, "eos_token_id is 999, but"),
        ("config.json", {"pad_token_id": 999}, "pad_token_id is 999, but"),
        ("config.json", {"vocab_size": 40}, "has 40 tokens; take the tokenizer"),
    ],
)
def test_ids_beyond_the_embeddings_are_told_with_the_files(folder, file, fields, words):
    say(folder, file, **fields)
    with pytest.raises(ValueError, match=words) as error:
        open_chat(ModelSource(folder))
    named = "tokenizer.json" if "vocab_size" in fields else file
    assert str(folder / named) in str(error.value)
    assert "pad_token_id" in fields or str(folder / "config.json") in str(error.value)


def test_a_special_token_that_nothing_writes_may_be_beyond_the_embeddings(folder):
    """Published models have such tokens, of images say."""
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    source, image = ModelSource(folder), tokenizer.convert_tokens_to_ids("<image>")
    assert image == source.config.vocab_size
    chat = ChatFormat(tokenizer)
    check_embedded(source, chat)
    assert image not in chat.prompt_ids((user("an <image> of food"),))
    tokenizer.chat_template += "<image>"
    with pytest.raises(ValueError, match="token '<image>' has id"):
        check_embedded(source, ChatFormat(tokenizer))


def test_a_gguf_file_states_all_its_ends_and_is_held_to_its_embeddings(folder, tmp_path):
    fields = {"head_dim": 8, **json.loads((folder / "config.json").read_text())}
    size = {"d": 32, "heads": 4, "kv": 2, "n": 8, "ff": 48, "v": fields["vocab_size"]}
    file = tmp_path / "model.gguf"

    def add(writer):
        writer.add_eos_token_id(END)
        writer.add_eot_token_id(FOOD)
        writer.add_uint32("tokenizer.ggml.eom_token_id", START)

    with pytest.MonkeyPatch.context() as patch:
        write = gguf.GGUFWriter.write_header_to_file
        patch.setattr(
            gguf.GGUFWriter, "write_header_to_file", lambda self, *a: (add(self), write(self, *a))
        )
        write_gguf(file, fields, random_weights(size, 2))
    assert ModelSource(file).stop_ids == (END, FOOD, START)
    tokenizer = load_tokenizer(folder)
    check_embedded(ModelSource(file), ChatFormat(tokenizer))
    tokenizer.add_tokens(["zebra"])
    with pytest.raises(ValueError, match=rf"{file}: token 'zebra' has id .*, but {file} has"):
        check_embedded(ModelSource(file), ChatFormat(tokenizer))
