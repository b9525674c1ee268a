"""Rows of any length into batches of few shapes, so that few programs compile."""

from collections.abc import Sequence

import numpy as np

from cai_jax.parallel.mesh import rounded_up


class TooLongError(ValueError):
    """A row is longer than what its reader was made for."""


def check_filled(rows: Sequence[Sequence[int]]) -> None:
    """Refuses a row without tokens.

    Raises:
      ValueError: there is one.
    """
    if any(not len(row) for row in rows):
        raise ValueError("a row of tokens is empty: nothing to condition on")


def widths(longest: int, multiple: int) -> list[int]:
    """Every multiple that rows of at most ``longest`` tokens are padded to, the largest first."""
    return list(range(rounded_up(longest, multiple), 0, -multiple))


def doubled(size: int, least: int) -> int:
    """The least of ``least``, twice that, and so on, that is not smaller: few sizes of programs."""
    wide = least
    while wide < size:
        wide *= 2
    return wide


def doublings(longest: int, least: int) -> list[int]:
    """Every size that ``doubled`` may give up to ``longest`` tokens, the largest first."""
    sizes = [least] if longest > 0 else []
    while sizes and sizes[0] < longest:
        sizes.insert(0, 2 * sizes[0])
    return sizes


def check_longest(lengths: Sequence[int], max_tokens: int | None, name: str) -> None:
    """Refuses rows longer than the run was planned for, before they meet a memory limit.

    Raises:
      TooLongError: a row has more than ``max_tokens``.
    """
    if max_tokens is not None and max(lengths, default=0) > max_tokens:
        raise TooLongError(
            f"{name}: a row has up to {max(lengths)} tokens, more than the context of "
            f"{max_tokens}; raise it, or shorten prompts and few-shots"
        )


def pad_rows(rows: Sequence[Sequence[int]], width: int, side: str) -> tuple[np.ndarray, np.ndarray]:
    """Int32 tokens and segments [rows, width]; the mask comes from lengths, never from ids."""
    tokens = np.zeros((len(rows), width), np.int32)
    segments = np.zeros((len(rows), width), np.int32)
    for r, row in enumerate(rows):
        columns = slice(0, len(row)) if side == "right" else slice(width - len(row), width)
        tokens[r, columns], segments[r, columns] = row, 1
    return tokens, segments
