"""Several rows in one row of a batch, and what they begin with read once where they share it."""

from bisect import bisect
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile

import numpy as np

from cai_jax.generation.batching import doubled

LEAST_SAVED = 64  # tokens; sharing fewer does not pay for two calls
PADDING = 1 / 3  # by which packs of rests are wider than what they hold, and whole rows' are not
STEP = 8  # what is shared is a multiple of it


@dataclass(frozen=True)
class Group:
    """Rows with a common beginning."""

    rows: tuple[int, ...]
    shared: int  # tokens that they begin with; each row has more


def groups(rows: Sequence[tuple[int, ...]], shareable: Sequence[int]) -> list[Group]:
    """Every row in one group, such that most tokens are saved; rows that save too few are alone.

    Args:
      rows: token ids.
      shareable: how many tokens of each may be shared, fewer than it has.
    """
    order = sorted(range(len(rows)), key=rows.__getitem__)
    # Of neighbours in that order; what a stretch of rows shares is the least between them.
    between = np.array(
        [_common(rows[i], rows[j], min(shareable[i], shareable[j])) for i, j in pairwise(order)],
        np.int64,
    )
    # Tokens of the rows before each, so that those of a stretch are a difference.
    before = np.cumsum([0, *(len(rows[i]) for i in order)])
    _, cuts = _best(between, before, 0)
    return [Group(tuple(order[start:end]), shared) for start, end, shared in cuts] if rows else []


def _best(
    between: np.ndarray, before: np.ndarray, first: int
) -> tuple[int, list[tuple[int, int, int]]]:
    """Tokens that a stretch of rows saves at best, and its groups: first row, end, tokens shared.

    The stretch shares as a whole what it has in common, or is cut where that is least.
    """
    if not between.size:
        return 0, [(first, first + 1, 0)]
    least = int(between.min())
    saved, start = 0, 0
    found: list[tuple[int, int, int]] = []
    for cut in [*np.flatnonzero(between == least), between.size]:
        part, inside = _best(between[start:cut], before, first + start)
        found.extend(inside)
        saved, start = saved + part, int(cut) + 1
    end = first + between.size + 1
    rests = before[end] - before[first] - least * (between.size + 1)
    if least * between.size > max(saved, LEAST_SAVED, least + PADDING * rests):
        return least * between.size, [(first, end, least)]
    return saved, found


def _common(one: Sequence[int], other: Sequence[int], most: int) -> int:
    """Tokens that both begin with, in steps that keep the number of cuts small."""
    pairs = zip(one[:most], other[:most], strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs)) // STEP * STEP


@dataclass(frozen=True)
class Packed:
    """Rests of the rows of one group, or whole rows, one after the other in one row of a batch."""

    shared: tuple[int, ...]  # what they go on from; of whole rows nothing
    rows: tuple[int, ...]
    rests: tuple[tuple[int, ...], ...]

    @property
    def tokens(self) -> int:
        """Of all the rests."""
        return sum(map(len, self.rests))


def pack(rows: Sequence[Sequence[int]], group: Group, most_tokens: int, most: int) -> list[Packed]:
    """The rests of a group's rows, in packs of so many tokens and rests at most.

    A rest that is longer is alone.
    """
    packs: list[list[int]] = [[]]
    room = most_tokens
    for i in group.rows:
        size = len(rows[i]) - group.shared
        if packs[-1] and (size > room or len(packs[-1]) == most):
            packs.append([])
            room = most_tokens
        packs[-1].append(i)
        room -= size
    shared = tuple(rows[group.rows[0]][: group.shared])
    return [
        Packed(shared, tuple(pack), tuple(tuple(rows[i][group.shared :]) for i in pack))
        for pack in packs
    ]


def pack_whole(
    rows: Sequence[Sequence[int]], chosen: Sequence[int], room: int, most: int
) -> list[Packed]:
    """Whole rows in packs of ``room`` tokens and ``most`` rows at most, the longest row first.

    A row that is longer has a pack of twice the room, or four times, and so on; shorter ones go
    where they fit best.
    """
    of_length: dict[int, list[int]] = defaultdict(list)
    for i in reversed(chosen):
        of_length[len(rows[i])].append(i)
    lengths = sorted(of_length)
    packs = []
    while lengths:
        pack: list[int] = []
        left = doubled(lengths[-1], room)
        while len(pack) < most and (longer := bisect(lengths, left)):
            length = lengths[longer - 1]
            pack.append(of_length[length].pop())
            left -= length
            if not of_length[length]:
                del lengths[longer - 1]
        packs.append(Packed((), tuple(pack), tuple(tuple(rows[i]) for i in pack)))
    return packs


def laid_out(
    packs: Sequence[Packed], width: int, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Packs as int32 tokens and segments [b, width], and the last place of each rest [b, most].

    A rest that is not there has the place 0.
    """
    tokens = np.zeros((len(packs), width), np.int32)
    segments, ends = np.zeros_like(tokens), np.zeros((len(packs), most), np.int32)
    for p, pack in enumerate(packs):
        at = 0
        for r, rest in enumerate(pack.rests):
            tokens[p, at : at + len(rest)], segments[p, at : at + len(rest)] = rest, r + 1
            at += len(rest)
            ends[p, r] = at - 1
    return tokens, segments, ends
