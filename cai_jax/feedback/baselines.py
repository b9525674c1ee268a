"""What pairs give away by their surface: classifiers that understand nothing, cross-validated.

On pairs that these tell apart, a labeler that does no better may have seen no more than they do.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict

from cai_jax.feedback.labeler import ResponsePair
from cai_jax.prompts.messages import first_user_text

FOLDS = 10


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
    texts = [pair.first for pair in pairs] + [pair.second for pair in pairs]
    openings = [first_user_text(pair.prompt).strip() for pair in pairs]
    if len(set(openings)) < 2 or not any(text.strip() for text in texts):
        return Baselines(0.5, 0.5, len(set(openings)))
    words = TfidfVectorizer(token_pattern=r"\w+|[^\w\s]", sublinear_tf=True)
    lengths = np.log1p([[len(text)] for text in texts])
    truth = np.asarray(first_is_better, bool)
    return Baselines(
        bag_of_words=_accuracy(words.fit_transform(texts), truth, openings),
        length=_accuracy(csr_matrix(lengths), truth, openings),
        openings=len(set(openings)),
    )


def _accuracy(features: Any, truth: np.ndarray, openings: list[str]) -> float:
    """Of a logistic regression on the difference of features [2 * pairs, features].

    It sees each pair in both orders and has no constant, so that it knows no position.
    """
    n = len(truth)
    difference = features[:n] - features[n:]
    margins = cross_val_predict(
        LogisticRegression(solver="liblinear", C=10.0, tol=1e-2, fit_intercept=False),
        vstack([difference, -difference]),
        np.concatenate([truth, ~truth]),
        groups=openings * 2,
        cv=GroupKFold(min(FOLDS, len(set(openings)))),
        method="decision_function",
    )[:n]
    return float(np.where(margins == 0, 0.5, (margins > 0) == truth).mean())
