"""Turns that stand in two purposes of the split: equal ones, and near-duplicates by MinHash."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from rensa import RMinHash

from cai_jax.data.splits import PURPOSES, normalized

FEW_SHOTS = "few-shots"
ORDER = (*PURPOSES, FEW_SHOTS)  # a turn is compared with those of purposes before its own
SHINGLE = 5  # characters
THRESHOLD = 0.5  # one word of seven or eight is another
BANDS, ROWS = 24, 3  # of a signature: finds 96 % of pairs at the threshold, 99.7 % at 0.6
WORST = 5  # examples that are kept


@dataclass(frozen=True)
class Turn:
    """What a user says first in a row, or the prompt of a few-shot."""

    purpose: str  # one of ORDER
    where: str  # file and id
    text: str


@dataclass(frozen=True)
class NearDuplicate:
    """Two turns of different purposes, and the Jaccard similarity of their shingles."""

    similarity: float
    turn: Turn
    other: Turn  # of a purpose before that of ``turn``


@dataclass(frozen=True)
class Overlap:
    """What the purposes of a split have in common.

    Attributes:
      turns: distinct ones of each purpose.
      near_duplicates: of ``"evaluation, training"``, how many turns of evaluation are near one of
        training.
      worst: the most similar ones.
    """

    turns: dict[str, int]
    near_duplicates: dict[str, int]
    worst: tuple[NearDuplicate, ...]


def equal_turns(turns: Sequence[Turn]) -> list[tuple[Turn, Turn]]:
    """Turns that differ in their purpose, and at most in case, spaces and punctuation."""
    first: dict[str, Turn] = {}
    before = [(first.setdefault(normalized(turn.text), turn), turn) for turn in turns]
    return [(other, turn) for other, turn in before if other.purpose != turn.purpose]


def overlap_of(turns: Sequence[Turn]) -> Overlap:
    """Counts near-duplicates, in time that grows as the texts do."""
    distinct = {normalized(turn.text): turn for turn in reversed(turns)}
    texts = sorted(distinct, key=lambda text: ORDER.index(distinct[text].purpose))
    ordered = [distinct[text] for text in texts]
    flat, offsets = _shingles(texts)
    found = []
    for i, j in set(_candidates(flat, offsets, [turn.purpose for turn in ordered])):
        one, other = (set(flat[offsets[n] : offsets[n + 1]].tolist()) for n in (i, j))
        similarity = len(one & other) / len(one | other)
        if similarity >= THRESHOLD:
            found.append(NearDuplicate(similarity, ordered[i], ordered[j]))
    found.sort(key=lambda near: (-near.similarity, near.turn.where, near.other.where))
    near = {(f"{n.turn.purpose}, {n.other.purpose}", n.turn.where) for n in found}
    return Overlap(
        turns=dict(Counter(turn.purpose for turn in ordered)),
        near_duplicates=dict(sorted(Counter(purposes for purposes, _ in near).items())),
        worst=tuple(found[:WORST]),
    )


def _shingles(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Hashes of all runs of SHINGLE characters, uint64, and where those of each text begin."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in texts], int)
    hashes = np.zeros_like(codes)
    for shift in range(SHINGLE):
        hashes = hashes * np.uint64(1_000_003) + np.roll(codes, -shift)
    left = np.repeat(np.cumsum(lengths), lengths) - np.arange(len(codes))  # in their text
    counts = np.maximum(lengths - SHINGLE + 1, 0)
    return hashes[left >= SHINGLE], np.concatenate([[0], np.cumsum(counts)])


def _candidates(
    flat: np.ndarray, offsets: np.ndarray, purposes: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """Pairs that agree in a band of their signatures, each turn with the first of each purpose."""
    signatures = np.empty((len(purposes), BANDS, ROWS), np.uint32)
    for start in range(0, len(purposes), 4096):
        ends = offsets[start : start + 4097]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            flat[ends[0] : ends[-1]], ends - ends[0], num_perm=BANDS * ROWS, seed=0
        )
        signatures[start : start + 4096] = np.array(matrix.to_rows()).reshape(-1, BANDS, ROWS)
    long_enough = np.flatnonzero(np.diff(offsets))
    for band in range(BANDS):
        firsts: dict[bytes, dict[str, int]] = {}
        for i in long_enough.tolist():
            alike = firsts.setdefault(signatures[i, band].tobytes(), {})
            yield from ((i, j) for purpose, j in alike.items() if purpose != purposes[i])
            alike.setdefault(purposes[i], i)
