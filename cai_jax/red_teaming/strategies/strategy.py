"""What a strategy is: what the attacker is asked for, and what becomes of what it writes."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Strategy:
    """A way to attack.

    Attributes:
      name: in the registry, and of the seeds that show it.
      ask: for a list of prompts, as the attacker model is told.
      seeds: the strategy whose prompts it is shown; empty: its own.
      turns: of the user; those after the first are written in view of the target's replies.
      disguise: what is made of a written prompt, by chance.
    """

    name: str
    ask: str
    seeds: str = ""
    turns: int = 1
    disguise: Callable[[str, np.random.Generator], str] = lambda text, rng: text

    @property
    def shown(self) -> str:
        """The strategy whose prompts the attacker is shown."""
        return self.seeds or self.name
