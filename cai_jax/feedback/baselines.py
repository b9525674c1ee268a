"""What pairs give away by their surface: classifiers that understand nothing, cross-validated.

On pairs that these tell apart, a labeler that does no better may have seen no more than they do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict

from cai_jax.feedback.labeler import ResponsePair
from cai_jax.letters import UNSPACED
from cai_jax.prompts.messages import first_user_text

FOLDS = 10
_SIGN = regex.compile(rf"[{UNSPACED}]|[\w--[{UNSPACED}]]+|[^\w\s]", regex.V1)
_UNSPACED = regex.compile(rf"[{UNSPACED}]{{2,}}")


@dataclass(frozen=True)
class Baselines:
    """Shares of pairs that a classifier ranks right; a tie counts as half right."""

    bag_of_words: float  # it sees how often a response has each word and sign
    length: float  # it sees how many characters
    openings: int  # distinct first turns of the pairs: those that open alike are not independent


def baselines(pairs: Sequence[ResponsePair], first_is_better: Sequence[bool]) -> Baselines:
    """Accuracies on pairs that a classifier was not fitted on, nor on any that opens alike.

    Of fewer than two openings, or of silence, nothing can be learned: every pair is a tie.
    """
    lengths = csr_matrix(np.log1p([[len(text)] for text in _texts(pairs)]))
    return Baselines(
        bag_of_words=float(words_right(pairs, first_is_better).mean()),
        length=float(right(lengths, first_is_better, openings(pairs)).mean()),
        openings=len(set(openings(pairs))),
    )


def words_right(
    pairs: Sequence[ResponsePair], first_is_better: Sequence[bool], most: int = 1
) -> np.ndarray:
    """Whether a bag of words ranks each pair right, float [pairs]: 0, 1, or 0.5 for a tie.

    Args:
      pairs: two responses each.
      first_is_better: the truth, a pair each.
      most: words in a row that the bag holds as one feature, beside single words.
    """
    texts = _texts(pairs)
    if not any(text.strip() for text in texts):
        return np.full(len(pairs), 0.5)
    words = TfidfVectorizer(
        tokenizer=_signs, token_pattern=None, sublinear_tf=True, ngram_range=(1, most)
    )
    return right(words.fit_transform(texts), first_is_better, openings(pairs))


def _signs(text: str) -> list[str]:
    """Words and signs; without spaces between words, each character and each two in a row."""
    pairs = (run[i : i + 2] for run in _UNSPACED.findall(text) for i in range(len(run) - 1))
    return [*_SIGN.findall(text), *pairs]


def _texts(pairs: Sequence[ResponsePair]) -> list[str]:
    return [pair.first for pair in pairs] + [pair.second for pair in pairs]


def openings(pairs: Sequence[ResponsePair]) -> list[str]:
    """First turns, a pair each: pairs of one are not independent."""
    return [first_user_text(pair.prompt).strip() for pair in pairs]


def right(features: Any, first_is_better: Sequence[bool], openings: Sequence[str]) -> np.ndarray:
    """How logistic regression on the difference of features [2 * pairs, features] ranks each pair.

    It is cross-validated by opening. It sees each pair in both orders and has no constant, so that
    it knows no position.
    """
    n, truth = len(openings), np.asarray(first_is_better, bool)
    if len(set(openings)) < 2:
        return np.full(n, 0.5)
    difference = features[:n] - features[n:]
    margins = cross_val_predict(
        LogisticRegression(solver="liblinear", C=10.0, tol=1e-2, fit_intercept=False),
        vstack([difference, -difference]),
        np.concatenate([truth, ~truth]),
        groups=[*openings, *openings],
        cv=GroupKFold(min(FOLDS, len(set(openings)))),
        method="decision_function",
    )[:n]
    return np.where(margins == 0, 0.5, (margins > 0) == truth)
