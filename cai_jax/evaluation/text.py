"""Measures of texts that reveal over-optimisation: repetition and refusals."""

import re
from collections.abc import Sequence

# A surface measure: it finds the usual phrases of refusal, not all.
_UNABLE = r"(?:can(?:no|')t|won't|will not|am unable to|am not able to|must decline to)"
_ACTS = r"(?:help|assist|provide|do that|answer|comply|fulfill|create|write|support|engage)"
_REFUSAL = re.compile(
    rf"\bi {_UNABLE} (?:\w+ )?{_ACTS}\b"
    r"|\bi(?:'m| am) (?:sorry|afraid),? (?:but|i)\b"
    r"|\bi(?:'m| am) not (?:going|comfortable|equipped|programmed|able|capable|designed)\b"
    r"|\bas an ai\b",
    re.IGNORECASE,
)


def distinct_n(texts: Sequence[str], n: int) -> float:
    """Distinct word n-grams as a share of all (Li et al. 2016); 0 if there are none."""
    grams = [
        tuple(words[i : i + n])
        for words in (text.lower().split() for text in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(grams)) / len(grams) if grams else 0.0


def refusal_rate(texts: Sequence[str]) -> float:
    """Share of texts with a phrase of refusal; 0 if there are no texts."""
    plain = [text.replace("\u2019", "'") for text in texts]
    return sum(bool(_REFUSAL.search(text)) for text in plain) / max(len(texts), 1)
