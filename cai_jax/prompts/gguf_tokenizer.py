"""The tokenizer inside a .gguf file, as a transformers tokenizer.

transformers can build one too, but only where PyTorch is installed.
"""

from pathlib import Path
from typing import cast

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from cai_jax.models.io.gguf_weights import GGUFWeights
from cai_jax.models.io.sources import open_weights

# How text is cut before byte pairs are merged, under llama.cpp's names. Llama 3 and Qwen 2 differ
# in how many digits stay together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|{digits}"
    r"| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA_3 = pre_tokenizers.Split(Regex(_WORDS.format(digits=r"\p{N}{1,3}")), "isolated")
_QWEN_2 = pre_tokenizers.Split(Regex(_WORDS.format(digits=r"\p{N}")), "isolated")
_BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
_GPT_2 = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
_CUTS: dict[str, list[pre_tokenizers.PreTokenizer]] = {
    "default": [_GPT_2],
    "gpt-2": [_GPT_2],
    "smollm": [pre_tokenizers.Digits(individual_digits=True), _GPT_2],
    "llama-bpe": [_LLAMA_3, _BYTES],
    "smaug-bpe": [_LLAMA_3, _BYTES],
    "qwen2": [_QWEN_2, _BYTES],
}
_CONTROL, _USER_DEFINED = 3, 4  # token types of the format


def gguf_tokenizer(file: Path) -> PreTrainedTokenizerFast:
    """Builds the tokenizer of a .gguf file.

    Raises:
      ValueError: it is not a byte-level BPE of a known cut.
    """
    weights = cast(GGUFWeights, open_weights(file))
    field = lambda key, *default: weights.field(f"tokenizer.ggml.{key}", *default)
    kind, cut = field("model"), field("pre", "default")
    if kind != "gpt2" or cut not in _CUTS:
        raise ValueError(
            f"{file}: a tokenizer of kind {kind!r} cut as {cut!r} is not supported in GGUF files "
            f"(only 'gpt2', cut as {', '.join(map(repr, _CUTS))}); give the model as a Hugging "
            "Face folder"
        )
    tokens, types = field("tokens"), field("token_type")
    merges = [tuple(merge.split(" ")) for merge in field("merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    # Llama 3 keeps a word that is a token whole, whether or not merges lead to it.
    whole_words = cut in ("llama-bpe", "smaug-bpe")
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=whole_words))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(_CUTS[cut])
    tokenizer.decoder = decoders.ByteLevel()
    whole = lambda wanted, special: [
        AddedToken(token, normalized=False, special=special)
        for token, kind in zip(tokens, types, strict=True)
        if kind == wanted
    ]
    tokenizer.add_special_tokens(whole(_CONTROL, True))
    tokenizer.add_tokens(whole(_USER_DEFINED, False))
    named = {}
    for name, key in (("bos_token", "bos"), ("eos_token", "eos"), ("pad_token", "padding")):
        index = field(f"{key}_token_id", -1)
        if index >= 0:
            named[name] = tokens[index]
    if field("add_bos_token", False):
        bos = named["bos_token"]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, field("bos_token_id"))]
        )
    template = weights.field("tokenizer.chat_template", "")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, chat_template=template or None, **named
    )
