"""Direct questions in spelling that a person still reads: letters swapped, doubled or replaced."""

import re

import numpy as np

from cai_jax.red_teaming.strategies.direct import DIRECT
from cai_jax.red_teaming.strategies.strategy import Strategy

_LOOKS_LIKE = str.maketrans("aeiost", "43105+")
_WORD = re.compile(r"[A-Za-z]{4,}")  # short words stay: they hold the sentence together
SHARE = 0.5  # of long words


def disguise(text: str, rng: np.random.Generator) -> str:
    """The text with about half of its long words misspelt; at least one, if it has any."""
    found = list(_WORD.finditer(text))
    chosen = rng.random(len(found)) < SHARE
    if found and not chosen.any():
        chosen[rng.integers(len(found))] = True
    for match, misspelt in reversed(list(zip(found, chosen, strict=True))):
        if misspelt:
            text = text[: match.start()] + _misspelt(match[0], rng) + text[match.end() :]
    return text


def _misspelt(word: str, rng: np.random.Generator) -> str:
    """The word in one of four other spellings; the first letter stays where letters move."""
    at = int(rng.integers(1, len(word) - 2)) if len(word) > 4 else 1
    spellings = (
        word[:at] + word[at + 1] + word[at] + word[at + 2 :],
        word[:at] + word[at] + word[at:],
        word[0] + word[1:].translate(_LOOKS_LIKE),
        "-".join(word),
    )
    other = [spelling for spelling in spellings if spelling != word]
    return other[int(rng.integers(len(other)))]


OBFUSCATED = Strategy("obfuscated", DIRECT.ask, seeds=DIRECT.name, disguise=disguise)
