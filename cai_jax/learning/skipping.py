"""Steps whose loss or gradient is not finite: left out, counted, written down, and limited."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cai_jax.learning.losses import TOKENS, Batch
from cai_jax.parallel import hosts

log = logging.getLogger("cai_jax")

SKIPPED = "skipped"  # metric: how many updates of a row of the history were left out


class DivergedError(FloatingPointError):
    """Training gives what is not finite, or has lost all that it began with."""


@dataclass(frozen=True)
class Skipping:
    """What a loop does about updates that were left out, and what it says where they are too many.

    Attributes:
      limit: of them in a loop; with one more it stops.
      folder: that their batches are written to; None: they are not.
      text: of token ids, for people to read.
      start: where the parameters come from that training begins with.
      lower_rate: the remedy where updates were too large.
      allow_more: the remedy where some batches are odd, and the rest is fine.
      exploded: a loss this many times larger than before training has not merely become worse.
    """

    limit: int = 3
    folder: Path | None = None
    text: Callable[[Sequence[int]], str] = str
    start: str = "the model that it starts from"
    lower_rate: str = "lower the learning rate"
    allow_more: str = "allow more of them"
    exploded: float = 10.0

    def too_many(self, rows: Sequence[dict[str, float]]) -> bool:
        """Whether a loop with this history has to stop."""
        return count(rows) > self.limit

    def check(self, name: str, rows: Sequence[dict[str, float]]) -> None:
        """Stops a loop that left out too many updates.

        Raises:
          DivergedError: it did; the message names what is to blame, and where the batches are.
        """
        if not self.too_many(rows):
            return
        left_out = [step for step, row in enumerate(rows) if row.get(SKIPPED)]
        first = left_out[0]
        found = (
            f"{name}: {count(rows)} updates, the first at step {first}, had a loss or gradient "
            "that is NaN or infinite and were left out"
        )
        at = f"; their batches are in {self.folder}" if self.folder else ""
        if not done(rows):  # no update is to blame
            why = f"{self.start} gives that before any update: see to it, or to the data"
        elif left_out == list(range(first, len(rows))):
            why = f"nothing was finite since: the update before broke the model; {self.lower_rate}"
        else:
            why = f"others were done between them: correct those rows, or {self.allow_more}"
        raise DivergedError(f"{found}{at}. {why[0].upper()}{why[1:]}")

    def check_learned(self, name: str, rows: Sequence[dict[str, float]]) -> None:
        """Refuses what trained for nothing.

        Raises:
          DivergedError: there were steps, and the updates of all were left out.
        """
        if rows and not done(rows):
            raise DivergedError(
                f"{name}: no step had a finite loss, so nothing was learned. {self.start} gives "
                "that before any update: see to it, or to the data"
            )

    def keep(self, name: str, step: int, content: Mapping[str, Any]) -> None:
        """Tells of an update that was left out, and writes down what it was of."""
        file = self.folder and self.folder / f"step-{step:06d}.json"
        log.warning(
            "%s: at step %d the loss or gradient is NaN or infinite; it changes nothing%s",
            *(name, step, f", and is written to {file}" if file else ""),
        )
        if file and hosts.is_main():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(content, indent=1, default=_plain) + "\n", encoding="utf-8")

    def check_loss(self, name: str, before: float, after: float) -> None:
        """Refuses a model whose loss on a batch that it learned from exploded meanwhile.

        Args:
          name: of the loop.
          before: the loss when it learned from it.
          after: the loss now; NaN where the gradient is not finite either.

        Raises:
          DivergedError: it did.
        """
        if after <= self.exploded * (1.0 + abs(before)):  # NaN is not
            return
        raise DivergedError(
            f"{name}: after training its first batch has a loss, or gradient, of {after:.3g}, and "
            f"had {before:.3g} before: updates broke the model, which is not kept; "
            f"{self.lower_rate}"
        )

    def described(self, batch: Batch[np.ndarray]) -> list[dict[str, Any]]:
        """The rows of a batch: ids and texts without padding, and numbers."""
        texts = [name for name in TOKENS if name in batch]
        numbers = [name for name, values in batch.items() if np.ndim(values) == 1]
        rows = []
        for r in range(len(batch[(texts or numbers)[0]])):
            row: dict[str, Any] = {name: float(batch[name][r]) for name in numbers}
            for name in texts:
                segments = batch["segments" if name == "tokens" else f"{name}_segments"][r]
                ids = batch[name][r][segments > 0].tolist()
                row |= {name: ids, f"{name}_text": self.text(ids)}
            rows.append(row)
        return rows


def count(rows: Sequence[dict[str, float]]) -> int:
    """Updates that were left out."""
    return int(sum(row.get(SKIPPED, 0) for row in rows))


def done(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """The rows of a history of which some update was done: only those have a gradient's norm."""
    return [row for row in rows if "grad_norm" in row]


def _plain(value: Any) -> Any:
    """JSON has no NaN: a number that is not finite is written as text."""
    found = np.asarray(value).tolist()
    return found if isinstance(found, list | str | int) else str(found)
