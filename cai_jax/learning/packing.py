"""Pairs of dialogues, packed: several in one row, so that next to nothing is padding."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from cai_jax.learning.losses import Batch
from cai_jax.parallel.mesh import abstract_batch, rounded_up

SIDES = ("first", "second")


def packed_rows(pairs: Batch[np.ndarray], parts: int, shards: int) -> int:
    """Rows that ``packed_pairs`` needs for a batch: as many a part, and as many a shard of it.

    Args:
      pairs: as ``packed_pairs`` takes them.
      parts: micro-batches.
      shards: that the rows of each are split over.
    """
    most = max(len(set(_rows(pairs, part, parts)[0])) for part in range(parts))
    return parts * rounded_up(max(most, 1), shards)


def packed_pairs(pairs: Batch[np.ndarray], rows: int, parts: int) -> Batch[np.ndarray]:
    """A batch of pairs in rows that hold several dialogues each.

    Args:
      pairs: for both sides int32 [b, t] ``first`` and ``first_segments``, padded on the right, and
        float32 [b] ``target`` and ``weight``; pairs of weight 0 only fill the batch.
      rows: of the packed batch, from ``packed_rows`` or more.
      parts: micro-batches; part i has every ``parts``-th row and pair from i on (``split_rows``).

    Returns:
      Int32 [rows, t] ``tokens`` and ``segments``, int32 [b] ``first`` and ``second``, the places of
      last tokens counted through the rows of a pair's part, and ``target`` and ``weight``.
    """
    length, each = pairs["first"].shape[1], rows // parts
    tokens = np.zeros((each, parts, length), np.int32)
    segments = np.zeros_like(tokens)
    ends = {side: np.zeros(len(pairs["weight"]), np.int32) for side in SIDES}
    for part in range(parts):
        fills, counts = np.zeros(each, int), np.zeros(each, int)
        for row, (pair, side, ids) in zip(*_rows(pairs, part, parts), strict=True):
            start, fills[row] = fills[row], fills[row] + len(ids)
            counts[row] += 1
            tokens[row, part, start : fills[row]] = ids
            segments[row, part, start : fills[row]] = counts[row]
            ends[side][pair] = row * length + fills[row] - 1
    flat = {"tokens": tokens.reshape(rows, length), "segments": segments.reshape(rows, length)}
    return {**flat, **ends, "target": pairs["target"], "weight": pairs["weight"]}


def abstract_packed(rows: int, length: int, pairs: int, mesh: Mesh) -> Batch[jax.ShapeDtypeStruct]:
    """Shapes of so many packed rows of a length, with so many pairs."""
    texts = abstract_batch((rows, length), jnp.int32, mesh)
    ends, numbers = (abstract_batch((pairs,), of, mesh) for of in (jnp.int32, jnp.float32))
    return {
        **dict.fromkeys(("tokens", "segments"), texts),
        **dict.fromkeys(SIDES, ends),
        **dict.fromkeys(("target", "weight"), numbers),
    }


def _rows(
    pairs: Batch[np.ndarray], part: int, parts: int
) -> tuple[list[int], list[tuple[int, str, np.ndarray]]]:
    """The row of each dialogue of a part, and its pair, side and ids, the longest first."""
    found = [
        (pair, side, pairs[side][pair][pairs[f"{side}_segments"][pair] > 0])
        for pair in range(part, len(pairs["weight"]), parts)
        for side in SIDES
        if pairs["weight"][pair] != 0
    ]
    found.sort(key=lambda dialogue: -len(dialogue[2]))
    return first_fit([len(ids) for _, _, ids in found], pairs["first"].shape[1]), found


def first_fit(lengths: Sequence[int], room: int) -> list[int]:
    """For each length the first row in which it has room, one more where there is none."""
    left: list[int] = []
    rows = []
    for length in lengths:
        row = next((row for row, free in enumerate(left) if free >= length), len(left))
        if row == len(left):
            left.append(room)
        left[row] -= length
        rows.append(row)
    return rows
