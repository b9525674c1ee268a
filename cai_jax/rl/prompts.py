"""Which prompts an iteration answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from cai_jax.keys import named_rng


@dataclass(frozen=True)
class Drawn:
    """A prompt of an iteration."""

    id: str
    ids: list[int]


@dataclass(frozen=True)
class PromptPool:
    """Prompts of two kinds, drawn in fixed shares.

    Attributes:
      red_team: prompts that ask for harm.
      helpful: prompts that ask for help.
      count: prompts an iteration.
      helpful_fraction: share of helpfulness prompts.
      samples: responses to each prompt.
      seed: of the draws.
    """

    red_team: Sequence[Drawn]
    helpful: Sequence[Drawn]
    count: int
    helpful_fraction: float
    samples: int
    seed: int

    def draw(self, iteration: int) -> list[Drawn]:
        """The prompts of an iteration, each as often as it is answered, in consecutive rows.

        Each kind in its share, without replacement where there are enough.

        Raises:
          ValueError: a kind that has a share has no prompts.
        """
        rng = named_rng(self.seed, "rl", "prompts", iteration)
        helpful = round(self.count * self.helpful_fraction)
        drawn = []
        for kind, name, count in (
            (self.red_team, "red-team", self.count - helpful),
            (self.helpful, "helpfulness", helpful),
        ):
            if not count:
                continue
            if not kind:
                raise ValueError(
                    f"rl: no {name} prompt has at most prompt_tokens; raise it, or change "
                    "helpful_fraction"
                )
            chosen = rng.choice(len(kind), size=count, replace=count > len(kind))
            drawn += [kind[int(i)] for i in chosen]
        return [prompt for prompt in drawn for _ in range(self.samples)]
