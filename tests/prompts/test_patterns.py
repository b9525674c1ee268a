"""Patterns of tokenizers that take for ever are refused before they are used."""

import json
import time

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

from cai_jax.prompts import patterns
from cai_jax.prompts.chat import load_tokenizer
from cai_jax.prompts.gguf_tokenizer import _LLAMA_3
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.reading import FileError

HOSTILE = (
    "(a+)+$",
    "(x+x+)+y",
    r"(?:ab|a|b)*\d",
    r"(\w*)*[!?]",
    r"a*a*a*a*a*[!?]",
    "(?:(?:é|.)*)*z$",
)
FAMILIES = (
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|\p{N}{1,3}|\s+",
    " {2,}",
)


def write(folder, **parts):
    """A word tokenizer with other parts."""
    word_tokenizer(["how can I help ?"]).save_pretrained(folder)
    file = folder / "tokenizer.json"
    made = Tokenizer.from_file(str(file))
    for name, part in parts.items():
        setattr(made, name, part)
    made.save(str(file))
    return file


def parts(regex):
    yield {"pre_tokenizer": pre_tokenizers.Split(Regex(regex), "isolated")}
    split = pre_tokenizers.Split(Regex(regex), "isolated")
    yield {"pre_tokenizer": pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), split])}
    yield {"normalizer": normalizers.Replace(Regex(regex), "b")}
    yield {"decoder": decoders.Replace(Regex(regex), "b")}


@pytest.mark.parametrize("regex", HOSTILE)
def test_a_pattern_that_takes_for_ever_is_refused_by_its_file(tmp_path, regex):
    file = write(tmp_path, **next(parts(regex)))
    started = time.monotonic()
    with pytest.raises(FileError, match="cannot be used on long texts") as refused:
        load_tokenizer(tmp_path, needs_template=False)
    assert str(refused.value).startswith(f"{file}: a pattern of the tokenizer, such as ")
    assert time.monotonic() - started < 60  # 2 s of processor time; machines are busy


@pytest.mark.parametrize("where", range(4))
def test_it_is_found_wherever_it_stands(tmp_path, where):
    write(tmp_path, **[*parts("(a+)+$")][where])
    with pytest.raises(FileError, match="cannot be used on long texts"):
        load_tokenizer(tmp_path, needs_template=False)


@pytest.mark.parametrize("regex", FAMILIES)
def test_patterns_of_known_families_are_taken(tmp_path, regex):
    for one in parts(regex):
        write(tmp_path, **one)
        load_tokenizer(tmp_path, needs_template=False)


def test_a_real_vocabulary_costs_little(tmp_path):
    """As many words and merges as Llama 3's; of the processor, since machines are busy."""
    words = [f"w{i}" for i in range(128_000)]
    vocabulary = {word: i for i, word in enumerate(["w", *"0123456789", *words])}
    made = Tokenizer(models.BPE(vocabulary, []))
    made.pre_tokenizer = _LLAMA_3
    made.save(str(tmp_path / "tokenizer.json"))
    patterns.check_patterns(tmp_path / "tokenizer.json")  # the child starts, and templates need it
    started = time.process_time()
    patterns.check_patterns(tmp_path / "tokenizer.json")
    assert time.process_time() - started < 0.1


@pytest.mark.parametrize("content", ["", "[", "[1]", '{"pre_tokenizer": 1}', '{"a": ' * 300])
def test_what_is_broken_otherwise_is_left_to_the_loader(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content)
    patterns.check_patterns(tmp_path / "tokenizer.json")


def test_deep_patterns_end(tmp_path):
    deep = {"Regex": "a"}
    for _ in range(150):
        deep = {"pretokenizers": [deep]}
    (tmp_path / "tokenizer.json").write_text(json.dumps({"pre_tokenizer": deep}))
    patterns.check_patterns(tmp_path / "tokenizer.json")
