"""What a loop measured: kept, written for TensorBoard and Weights & Biases, and checked."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cai_jax import tf
from cai_jax.learning.skipping import SKIPPED
from cai_jax.learning.tracking import open_tracker
from cai_jax.parallel import hosts
from cai_jax.progress import progress

Scalars = dict[str, float]
log = logging.getLogger("cai_jax")


class History:
    """The scalars of every step so far, in order.

    Args:
      name: of the loop, for errors and the progress bar.
      writers: of TensorBoard files, and others.
      bar: that shows how far the loop is.
      shown: scalars that the bar shows.
    """

    def __init__(self, name: str, writers: Sequence[Any], bar: Any, shown: tuple[str, ...]):
        self.name, self.rows = name, list[Scalars]()
        self._writers, self._bar, self._shown = writers, bar, shown

    def record(self, scalars: Mapping[str, Any]) -> Scalars:
        """Keeps and writes the scalars of the next step: those that are finite, if it was left out.

        Raises:
          FloatingPointError: a metric of an update that was done is NaN or infinite.
        """
        row = {key: float(value) for key, value in scalars.items()}
        if row.get(SKIPPED):
            row = {key: value for key, value in row.items() if math.isfinite(value)}
        for key, value in row.items():
            if not math.isfinite(value):
                raise FloatingPointError(
                    f"{self.name}: {key} is {value} at step {len(self.rows)}, whose loss and "
                    "gradient are finite; report it, with the config"
                )
        self._keep(row)
        return row

    def go_on(self, rows: Sequence[Scalars]) -> None:
        """Begins with the rows of a loop that was cut off, and says how far it had come."""
        for row in rows:
            self._keep(row)
        left = f", {self._bar.total - len(rows)} left" if self._bar.total else ""
        log.info("%s: goes on: %d steps done%s", self.name, len(rows), left)

    def show(self, step: int, texts: Mapping[str, str]) -> None:
        """Writes texts of a step, by name; TensorBoard renders them as Markdown."""
        for writer in self._writers:
            writer.write_texts(step, texts)

    def _keep(self, row: Scalars) -> None:
        for writer in self._writers:
            writer.write_scalars(len(self.rows), row)
        self.rows.append(row)
        shown = {key: f"{row[key]:.3f}" for key in self._shown if key in row}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update()


@contextmanager
def open_history(folder: Path, name: str, steps: int, shown: tuple[str, ...]) -> Iterator[History]:
    """A history of so many steps, 0 if not known; its TensorBoard files in ``folder``."""
    board = tf.metric_writers.create_default_writer(
        str(folder / "tensorboard"), just_logging=not hosts.is_main(), asynchronous=False
    )
    tracker = open_tracker(folder, name) if hosts.is_main() else None
    failed = True
    try:
        with progress(steps or None, name, "step") as bar:
            yield History(name, [board, *([tracker] if tracker else [])], bar, shown)
        failed = False
    finally:
        board.close()
        if tracker:
            tracker.close(failed)
