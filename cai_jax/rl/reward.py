"""The reward: normalised scores of a preference model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from cai_jax.generation.engine import Completion
from cai_jax.generation.scoring import Scorer
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.critique_revision import parse_reply


@dataclass(frozen=True)
class Reward:
    """Scores of responses: 0 is the mean of SL-CAI samples, 1 their standard deviation, over
    both kinds of prompts.

    Replies that do not parse get a fixed score: comparisons hold none, so the preference model
    has never read one, and PPO would soon write what it misjudges (seen: rows of emoji).
    """

    scorer: Scorer  # of the preference model
    open_chat: Callable[[], ChatFormat]  # of the policy; what is compiled does not depend on it
    mean: float  # of raw scores
    std: float
    unusable_score: float  # of a reply that does not parse, in standard deviations

    @cached_property
    def chat(self) -> ChatFormat:
        """Of the policy and of the preference model: their tokens are the same."""
        return self.open_chat()

    def __call__(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[str | None], name: str = "score"
    ) -> np.ndarray:
        """Float32 scores.

        Args:
          prompts: ids.
          replies: texts as ``usable_text`` gives them; None for one that does not parse.
          name: label of the progress bar.
        """
        scores = np.full(len(replies), self.unusable_score, np.float32)
        usable = [(i, reply) for i, reply in enumerate(replies) if reply is not None]
        if usable:
            rows = [self.chat.judged_ids(prompts[i], reply) for i, reply in usable]
            raw = self.scorer.preference_scores(rows, name)
            scores[[i for i, _ in usable]] = (raw - self.mean) / self.std
        return scores


def usable_text(chat: ChatFormat, sample: Completion) -> str | None:
    """What a sampled reply says, up to its last whole sentence; None if it does not parse."""
    return parse_reply(chat.text(sample.ids), sample.finished, ())
