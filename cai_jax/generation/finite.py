"""What a model gives is finite: seen on the host, where it was called."""

from collections.abc import Sequence

import numpy as np

from cai_jax.models.blueprint import Origin


class NotFiniteError(FloatingPointError):
    """A model gives NaN or infinite values; the message names the model."""

    def __init__(self, message: str, origin: Origin):
        super().__init__(message)
        self.origin = origin


def check_finite(
    values: np.ndarray, rows: Sequence[int], what: str, name: str, origin: Origin
) -> None:
    """Refuses what a batch gave.

    Args:
      values: [rows, ...]; those past ``rows`` only fill the batch.
      rows: their numbers, from 0, as the caller counts them.
      what: that the model gives.
      name: of the call.
      origin: of the model.

    Raises:
      NotFiniteError: a row is not finite.
    """
    finite = np.isfinite(values[: len(rows)]).all(axis=tuple(range(1, values.ndim)))
    odd = sorted(row for row, good in zip(rows, finite, strict=True) if not good)
    if not odd:
        return
    where = (
        "every row of a batch" if len(odd) == len(rows) > 1 else f"row {odd[0] + 1} of its prompts"
    )
    raise NotFiniteError(
        f"{name}: {origin.name} gives {what} that are NaN or infinite, for {where}; "
        f"{origin.remedy}",
        origin,
    )
