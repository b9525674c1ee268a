"""Texts that say nearly the same, by MinHash: turns in two purposes of the split, new prompts."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rensa import RMinHash

from cai_jax.data.splits import PURPOSES, normalized

FEW_SHOTS, DEMONSTRATIONS = "few-shots", "demonstrations"
# A turn is compared with those of purposes before its own.
ORDER = (*PURPOSES, FEW_SHOTS, DEMONSTRATIONS)
SHINGLE = 5  # characters, of letters
SYLLABLES = 2  # characters, where most are syllables or words
# Kana, Han and Hangul, by code point: from, and below.
_SYLLABIC = ((0x3040, 0x3100), (0x3400, 0xA000), (0xAC00, 0xD7B0), (0x20000, 0x40000))
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
    """Hashes of all runs of some characters, uint64, and where those of each text begin."""
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.uint64)
    lengths = np.array([len(text) for text in texts], int)
    ends = np.cumsum(lengths)
    sizes = _sizes(codes, ends)
    size = np.repeat(sizes, lengths)
    hashes = np.zeros_like(codes)
    for shift in range(max(SHINGLE, SYLLABLES)):
        longer = hashes * np.uint64(1_000_003) + np.roll(codes, -shift)
        hashes = np.where(shift < size, longer, hashes)
    left = np.repeat(ends, lengths) - np.arange(len(codes))  # in their text
    counts = np.maximum(lengths - sizes + 1, 0)
    return hashes[left >= size], np.concatenate([[0], np.cumsum(counts)])


def _sizes(codes: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Characters of a shingle of each text, int [texts], by what most of its characters are."""
    syllabic = np.zeros(len(codes), bool)
    for start, stop in _SYLLABIC:
        syllabic |= (codes >= start) & (codes < stop)
    totals = np.concatenate([[0], np.cumsum(syllabic)])[np.concatenate([[0], ends])]
    lengths = np.diff(ends, prepend=0)
    return np.where(2 * np.diff(totals) > lengths, SYLLABLES, SHINGLE)


def _candidates(
    flat: np.ndarray, offsets: np.ndarray, purposes: Sequence[str]
) -> Iterator[tuple[int, int]]:
    """Pairs that agree in a band of their signatures, each turn with the first of each purpose."""
    signatures = _signatures(flat, offsets)
    long_enough = np.flatnonzero(np.diff(offsets))
    for band in range(BANDS):
        firsts: dict[bytes, dict[str, int]] = {}
        for i in long_enough.tolist():
            alike = firsts.setdefault(signatures[i, band].tobytes(), {})
            yield from ((i, j) for purpose, j in alike.items() if purpose != purposes[i])
            alike.setdefault(purposes[i], i)


def _signatures(flat: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """MinHash signatures of texts, uint32 [texts, BANDS, ROWS]."""
    signatures = np.empty((len(offsets) - 1, BANDS, ROWS), np.uint32)
    for start in range(0, len(signatures), 4096):
        ends = offsets[start : start + 4097]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            flat[ends[0] : ends[-1]], ends - ends[0], num_perm=BANDS * ROWS, seed=0
        )
        signatures[start : start + 4096] = np.array(matrix.to_rows()).reshape(-1, BANDS, ROWS)
    return signatures


class Known:
    """Texts by which a new one is known to say nearly what one of them says.

    Args:
      threshold: Jaccard similarity of shingles from which on two texts are near; texts that are
        equal without case, spaces and punctuation are near at any.
    """

    def __init__(self, threshold: float = THRESHOLD):
        self.threshold = threshold
        self._equal: set[str] = set()
        self._shingles: list[set[int]] = []
        self._bands: dict[tuple[int, bytes], list[int]] = {}

    def add(self, texts: Sequence[str]) -> None:
        """Makes texts known."""
        for text, shingles, bands in zip(*self._read(texts), strict=True):
            self._equal.add(text)
            for band in bands:
                self._bands.setdefault(band, []).append(len(self._shingles))
            self._shingles.append(shingles)

    def near(self, text: str) -> bool:
        """Whether a text is equal or near to a known one."""
        (same,), (shingles,), (bands,) = self._read([text])
        if same in self._equal:
            return True
        found = {i for band in bands for i in self._bands.get(band, ())}
        others = (self._shingles[i] for i in found)
        return any(len(shingles & o) >= self.threshold * len(shingles | o) for o in others)

    def _read(
        self, texts: Sequence[str]
    ) -> tuple[list[str], list[set[int]], list[list[tuple[int, bytes]]]]:
        """Texts as they are compared, their shingles, and the bands of those that have any."""
        same = [normalized(text) for text in texts]
        flat, offsets = _shingles(same)
        shingles = [set(flat[a:b].tolist()) for a, b in pairwise(offsets)]
        signatures = _signatures(flat, offsets)
        bands = [
            [(band, row[band].tobytes()) for band in range(BANDS)] if its else []
            for row, its in zip(signatures, shingles, strict=True)
        ]
        return same, shingles, bands
