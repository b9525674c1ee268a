"""What a model gives is finite: told inside the program, raised on the host where it was called."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from cai_jax.models.blueprint import Origin


class NotFiniteError(FloatingPointError):
    """A model gives NaN or infinite values; the message names the model."""

    def __init__(self, message: str, origin: Origin):
        super().__init__(message)
        self.origin = origin


def finite_rows(values: jax.Array) -> jax.Array:
    """Bool [b]: whether all values of a row are finite, of an array whose first axis is rows."""
    return jnp.all(jnp.isfinite(values), axis=tuple(range(1, values.ndim)))


def check_finite(
    finite_b: np.ndarray, rows: Sequence[int], what: str, name: str, origin: Origin
) -> None:
    """Refuses what a batch gave.

    Args:
      finite_b: of ``finite_rows``; rows past ``rows`` only fill the batch.
      rows: numbers of the rows, from 0, as the caller counts them.
      what: that the model gives.
      name: of the call.
      origin: of the model.

    Raises:
      NotFiniteError: a row is not finite.
    """
    odd = sorted(row for row, finite in zip(rows, finite_b, strict=False) if not finite)
    if not odd:
        return
    where = "every row of a batch" if len(odd) == len(rows) else f"row {odd[0] + 1} of its prompts"
    raise NotFiniteError(
        f"{name}: {origin.name} gives {what} that are NaN or infinite, for {where}; "
        f"{origin.remedy}",
        origin,
    )
