"""Which prompts an iteration answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cai_jax.data.readers import Prompt
from cai_jax.keys import named_rng
from cai_jax.prompts.chat import ChatFormat, Reading

Asked = TypeVar("Asked")
BATCH = 1024  # prompts that are rendered and tokenised at once


@dataclass(frozen=True)
class Drawn:
    """A prompt of an iteration."""

    id: str
    ids: list[int]


@dataclass(frozen=True)
class PromptPool(Generic[Asked]):
    """Prompts of two kinds, as they are written or as ids, drawn in fixed shares.

    Attributes:
      red_team: prompts that ask for harm.
      helpful: prompts that ask for help.
      count: prompts an iteration.
      helpful_fraction: share of helpfulness prompts.
      samples: responses to each prompt.
      seed: of the draws.
    """

    red_team: Sequence[Asked]
    helpful: Sequence[Asked]
    count: int
    helpful_fraction: float
    samples: int
    seed: int

    def draw(self, iteration: int) -> list[Asked]:
        """The prompts of an iteration, each as often as it is answered, in consecutive rows.

        Each kind in its share, without replacement where there are enough.

        Raises:
          ValueError: a kind that has a share has no prompts.
        """
        rng = named_rng(self.seed, "rl", "prompts", iteration)
        helpful = round(self.count * self.helpful_fraction)
        drawn = list[Asked]()
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


def short(prompts: Sequence[Prompt], chat: ChatFormat, most: int) -> list[Prompt]:
    """The prompts that have at most so many tokens; their ids are not kept."""
    found = list[Prompt]()
    for at in range(0, len(prompts), BATCH):
        batch = prompts[at : at + BATCH]
        lengths = chat.lengths([Reading(prompt.messages) for prompt in batch])
        found += [prompt for prompt, n in zip(batch, lengths, strict=True) if n <= most]
    return found


def tokenised(prompts: Sequence[Prompt], chat: ChatFormat) -> list[Drawn]:
    """Ids of the prompts of an iteration, in one batch; of those that repeat once."""
    dialogues = list(dict.fromkeys(prompt.messages for prompt in prompts))
    ids = dict(zip(dialogues, chat.prompts_ids(dialogues), strict=True))
    return [Drawn(prompt.id, ids[prompt.messages]) for prompt in prompts]
