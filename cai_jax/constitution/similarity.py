"""How alike texts are: the Jaccard similarity of the runs of five characters that they have."""

import re
from collections.abc import Sequence

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer

SHINGLE = 5  # characters
THRESHOLD = 0.5  # of near-duplicates, as of prompts: one word of seven or eight is another

_hashed = HashingVectorizer(
    analyzer="char",
    ngram_range=(SHINGLE, SHINGLE),
    preprocessor=lambda text: plain(text),
    binary=True,
    norm=None,
    alternate_sign=False,
)


def plain(text: str) -> str:
    """A text without case, spaces and punctuation; only stripped if nothing else is left of it."""
    return re.sub(r"[\W_]+", "", text.casefold()) or text.strip()


def shingles(texts: Sequence[str]) -> sparse.csr_matrix:
    """Which runs of characters each text has, 0 or 1 [texts, hashes]; short texts have none."""
    return _hashed.transform(texts)


def jaccard(ones: sparse.csr_matrix, others: sparse.csr_matrix) -> np.ndarray:
    """Similarity of every one with every other, [ones, others]; 0 where neither has a run."""
    shared = (ones @ others.T).toarray()
    sizes = ones.sum(axis=1).reshape(-1, 1) + others.sum(axis=1).reshape(1, -1)
    return np.asarray(shared / np.maximum(np.asarray(sizes) - shared, 1))
