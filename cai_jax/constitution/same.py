"""What counts as the same without asking anybody: names that look alike, texts equal in wording.

``same_words`` is what merge joins by, so it errs to one side. A word that two texts do not share
can turn one of them around, whatever a list of antonyms knows: "landlord" for "tenant", "after" for
"before", "only" where there was nothing. Texts are the same if nothing is left that one has and the
other has not, in the same order, but for articles, the "you" that is spoken to, number and case.
"""

import re
import unicodedata

from cai_jax.letters import seen

_TOKEN = re.compile(r"[^\W_]+(?:['-][^\W_]+)*|\S")
_DROPPED = {"a", "an", "the", "you"}
_ALIKE = [
    (re.compile(r"\bca(?:n't|nnot)\b"), "can not"),
    (re.compile(r"n't\b"), " not"),
    (re.compile(r"(?<=\w)'s?(?!\w)"), ""),
    (re.compile(r",(?= (?:and|or)\b)"), ""),
    # "Show a little doubt" is not "show little doubt": that article counts.
    (re.compile(r"\b(?:a|the) (few|little)\b"), r"a-\1"),
]
_ONE_WORD = {  # forms of a word, and words that are one in any sentence
    "are": "is",
    "were": "was",
    "have": "has",
    "do": "does",
    "every": "each",
    "someone": "somebody",
    "anyone": "anybody",
    "everyone": "everybody",
    "reply": "response",
    "replies": "response",
}


def folded(name: str) -> str:
    """A name as people read it: without case, invisible characters, and ways to encode accents."""
    return unicodedata.normalize("NFC", seen(name).casefold())


def same_words(text: str) -> tuple[str, ...]:
    """What a text says, in an order and in words that it shares with texts equal in wording."""
    plain = " ".join(folded(text).replace("’", "'").split()).rstrip(" .")
    for pattern, alike in _ALIKE:
        plain = pattern.sub(alike, plain)
    return tuple(_word(token) for token in _TOKEN.findall(plain) if token not in _DROPPED)


def _word(token: str) -> str:
    """A word in the singular, or what stands for it."""
    return _ONE_WORD.get(token) or re.sub(r"(?<=\w\w[^s])s$", "", token)
