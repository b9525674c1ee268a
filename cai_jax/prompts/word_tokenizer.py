"""A word-level tokenizer, for small models that are pretrained from scratch."""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers
from tokenizers import pre_tokenizers as pre
from tokenizers.trainers import WordLevelTrainer
from transformers import PreTrainedTokenizerFast

_SPECIAL = ("<unk>", "<end>", "<system>", "<user>", "<assistant>")
_TEMPLATE = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def word_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer with one token per word and punctuation mark of the texts, and a chat template.

    Line breaks become spaces. Words that are not in the texts become ``<unk>``.
    """
    tokenizer = Tokenizer(models.WordLevel({}, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    tokenizer.pre_tokenizer = pre.Sequence([pre.Metaspace(), pre.Punctuation()])
    tokenizer.decoder = decoders.Metaspace()
    special = [AddedToken(token, special=True, normalized=False) for token in _SPECIAL]
    tokenizer.train_from_iterator(texts, WordLevelTrainer(special_tokens=special))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        eos_token="<end>",
        pad_token="<unk>",
        chat_template=_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )
