"""Watching RL: alarms by its own numbers, and a second preference model against over-optimisation.

What RL climbs is an imperfect reward, and past some point more of it is less of what was meant
(Bai et al. 2022, section 4.3). A preference model of other prompts and another seed, which no
update ever saw, tells where that is.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from flax import nnx

from cai_jax.generation.engine import Completion
from cai_jax.prompts.chat import ChatFormat
from cai_jax.rl.prompts import Drawn
from cai_jax.rl.reward import Objective, usable


@dataclass(frozen=True)
class Alarms:
    """Bounds above which an iteration is told of.

    Attributes:
      kl: nats a response, from the reference (k3).
      sampler_gap: nats a token, mean, between sampler and trainer.
      degenerate: share of responses of one kind, see ``degenerate``.
    """

    kl: float
    sampler_gap: float
    degenerate: float

    def of(self, row: Mapping[str, float]) -> list[str]:
        """What there is to tell of an iteration with these metrics."""
        found = []
        if row.get("kl_k3", 0.0) > self.kl:
            found.append(
                f"the policy is {row['kl_k3']:.1f} nats a response from SL-CAI, above max_kl = "
                f"{self.kl}; raise kl_coef, or lower learning_rate"
            )
        if row.get("sampler_gap_mean", 0.0) > self.sampler_gap:
            found.append(
                "sampler and trainer log-probabilities differ by "
                f"{row['sampler_gap_mean']:.3f} nats a token, above max_sampler_gap = "
                f"{self.sampler_gap}"
            )
        found += [
            f"{row[kind]:.0%} of the responses {what}, above max_degenerate = {self.degenerate}"
            for kind, what in DEGENERATE.items()
            if row.get(kind, 0.0) > self.degenerate
        ]
        return found


DEGENERATE = {
    "empty": "are empty",
    "equal": "are one and the same",
    "repeating": "repeat themselves",
    "endless": "never end",
}
GRAM = 4  # tokens


def degenerate(completions: Sequence[Completion]) -> dict[str, float]:
    """Shares of responses that say nothing, by kind.

    They hold no token but a stop; they are the most frequent one; most of their 4-grams stand in
    them before; or no stop came.
    """
    texts = [tuple(c.ids[: len(c.ids) - c.finished]) for c in completions]
    return {
        "empty": float(np.mean([not text for text in texts])),
        "equal": max(Counter(texts).values()) / len(texts),
        "repeating": float(np.mean([_repeats(text) for text in texts])),
        "endless": float(np.mean([not c.finished for c in completions])),
    }


def _repeats(text: Sequence[int]) -> bool:
    grams = [tuple(text[i : i + GRAM]) for i in range(len(text) - GRAM + 1)]
    return 2 * len(set(grams)) < len(grams)


@dataclass(frozen=True)
class Look:
    """One policy's replies, one a prompt; scores in standard deviations of SL-CAI's samples."""

    iteration: int  # of which the policy comes; 0 is SL-CAI
    reward: list[float]  # by the preference model that RL climbs
    second: list[float]  # by the one that it does not know
    replies: list[str] = field(default_factory=list)  # as texts; none in older runs

    @property
    def gap(self) -> float:
        """By how much more the reward likes the policy than the second model does."""
        return float(np.mean(self.reward) - np.mean(self.second))


def _quoted(text: str) -> str:
    """Text of a model as Markdown shows it: as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines())


@dataclass(frozen=True)
class Watch:
    """Looks at a policy while it is trained, keeps it, and tells when to stop.

    Attributes:
      every: iterations between two looks.
      patience: looks without a better one before training stops; 0: it never does.
      prompts: that are answered at each look, at most as many as an iteration has responses.
      second: the preference model that the policy is not trained on.
      missing_stop_penalty: off the scores of a response that never ended, as in training.
      keep: saves the decoder's trained parameters of an iteration.
      looks: so far.
    """

    every: int
    patience: int
    prompts: Sequence[Drawn]
    second: Objective
    missing_stop_penalty: float
    keep: Callable[[int, nnx.State], None]
    looks: list[Look] = field(default_factory=list)

    def due(self, iteration: int, iterations: int) -> bool:
        """Whether to look after so many of the iterations; at the last policy always."""
        return iteration % self.every == 0 or iteration == iterations

    def look(self, iteration: int, reward: Objective, completions: Sequence[Completion]) -> None:
        """Scores replies to ``prompts`` by both preference models."""
        ids = [drawn.ids for drawn in self.prompts]
        replies = [usable(reward.chat, completion) for completion in completions]
        endless = np.array([not completion.finished for completion in completions])
        by_reward, by_second = (
            (judge(ids, replies, "rl: watch") - self.missing_stop_penalty * endless).tolist()
            for judge in (reward, self.second)
        )
        texts = [reward.chat.text(completion.ids) for completion in completions]
        self.looks.append(Look(iteration, by_reward, by_second, texts))

    def shown(self, chat: ChatFormat, look: Look) -> dict[str, str]:
        """What was asked and replied at a look, as Markdown, by id of the prompt."""
        return {
            f"replies/{drawn.id}": f"{_quoted(chat.text(drawn.ids))}\n\n---\n\n{_quoted(reply)}"
            for drawn, reply in zip(self.prompts, look.replies, strict=bool(look.replies))
        }

    @property
    def best(self) -> Look:
        """The trained policy that the second model likes best, the earliest of equals."""
        return max(self.looks[1:], key=lambda look: np.mean(look.second))

    @property
    def stops(self) -> bool:
        """Whether the last ``patience`` looks were no better than one before them."""
        since = len(self.looks) - 1 - self.looks.index(self.best) if self.looks[1:] else 0
        return 0 < self.patience <= since
