"""How far a loop is: a bar in a terminal, and in a log a line now and then."""

import io
import logging
import os
import sys
from typing import Any

from tqdm import tqdm

log = logging.getLogger("cai_jax")
LINES_EVERY = 30.0  # seconds, in a log
_LINE = "{desc}: {n_fmt} of {total_fmt}, {rate_fmt}, {remaining} left{postfix}"


class _Lines(tqdm):
    """A bar that is told of in lines of the log."""

    def __init__(self, **options: Any):
        # tqdm reads the environment when it is imported first, by whatever library.
        every = float(os.environ.get("TQDM_MININTERVAL", LINES_EVERY))
        super().__init__(
            file=io.StringIO(), bar_format=_LINE, mininterval=every, maxinterval=every, **options
        )

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Tells, but for the beginning and the end."""
        if msg is None and self.n > 0 and self.n != self.total:
            log.info("%s", self)


def progress(total: int | None, name: str, unit: str) -> Any:
    """A tqdm bar of so many units, a context manager; None: nobody knows how many."""
    kind = tqdm if sys.stderr.isatty() else _Lines
    return kind(total=total, desc=name, unit=unit, leave=False)
