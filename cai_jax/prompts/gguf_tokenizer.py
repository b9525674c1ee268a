"""The tokenizer inside a .gguf file, as a transformers tokenizer.

transformers can build one too, but only if PyTorch is installed.
"""

from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cai_jax.models.io.gguf_weights import GGUFWeights
from cai_jax.models.io.sources import open_weights
from cai_jax.models.io.weights import Weights
from cai_jax.reading import FileError, parsing

# Pre-tokenizers by llama.cpp's names. Those of Llama 3 and Qwen 2 differ in how many digits form a
# word.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_3 = pre_tokenizers.Split(Regex(_WORDS.format(digits=r"\p{N}{1,3}")), "isolated")
_QWEN_2 = pre_tokenizers.Split(Regex(_WORDS.format(digits=r"\p{N}")), "isolated")
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_PRE_TOKENIZERS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "default": [_GPT_2],
    "gpt-2": [_GPT_2],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), _GPT_2],
    "llama-bpe": [_LLAMA_3, _BYTES],
    "smaug-bpe": [_LLAMA_3, _BYTES],
    "qwen2": [_QWEN_2, _BYTES],
}
_CONTROL, _USER_DEFINED = 3, 4  # token types of GGUF


def gguf_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """Builds the tokenizer of a .gguf file.

    Raises:
      ValueError: it is not a byte-level BPE with a known pre-tokenizer.
    """
    weights = open_weights(file)
    with parsing(file, "no tokenizer that can be read", "give the model as a Hugging Face folder"):
        return _built(file, weights)


def _built(file: Path, weights: Weights) -> PreTrainedTokenizerFast:
    if not isinstance(weights, GGUFWeights):
        raise FileError(file, "not a .gguf file; give one")

    def field(key: str, default: Any = None) -> Any:
        return weights.field(f"tokenizer.ggml.{key}", default)

    kind, pre = field("model"), field("pre", "default")
    if kind != "gpt2" or pre not in _PRE_TOKENIZERS:
        raise FileError(
            file,
            f"a tokenizer of kind {kind!r} with the pre-tokenizer {pre!r} is not supported "
            f"in GGUF files (only 'gpt2' with {', '.join(map(repr, _PRE_TOKENIZERS))}); give the "
            "model as a Hugging Face folder",
        )
    tokens, types = field("tokens"), field("token_type")
    merges = [tuple(merge.split(" ")) for merge in field("merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 does not split a word that is a token, whether or not merges produce it.
    ignore_merges = pre in ("llama-bpe", "smaug-bpe")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_PRE_TOKENIZERS[pre])
    tokenizer.decoder = decoders.ByteLevel()
    added = lambda wanted, special: [
        AddedToken(token, normalized=False, special=special)
        for token, type_ in zip(tokens, types, strict=True)
        if type_ == wanted
    ]
    tokenizer.add_special_tokens(added(_CONTROL, True))
    tokenizer.add_tokens(added(_USER_DEFINED, False))
    special_tokens: dict[str, str] = {}
    for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")):
        index = field(f"{key}_token_id", -1)
        if index >= 0:
            special_tokens[name] = tokens[index]
    if field("add_bos_token", False):
        bos = special_tokens["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, field("bos_token_id"))]
        )
    template = weights.field("tokenizer.chat_template", "")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        name_or_path=str(file),
        chat_template=template or None,
        **special_tokens,
    )
