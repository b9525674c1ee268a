"""What a labeler is: it says which of two responses keeps closer to the constitution."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cai_jax.constitution.schema import ChoiceExample, Constitution, FeedbackPrinciple
from cai_jax.data.rows import Comparison
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat, Reading
from cai_jax.prompts.few_shots import FewShots
from cai_jax.prompts.messages import Dialogue


@dataclass(frozen=True)
class ResponsePair:
    """Two responses to a prompt, and the k principles to compare them under."""

    id: str
    prompt: Dialogue
    first: str
    second: str
    principles: tuple[FeedbackPrinciple, ...]


@dataclass(frozen=True)
class Judgement:
    """P(first is better), float [k], one entry a principle; the label is kept within bounds.

    Attributes:
      thoughts: what was reasoned before the answers, if anything was: as many chains of each
        principle and, of these, of each order.
    """

    shown_first: np.ndarray  # the first response stood as option (A)
    shown_second: np.ndarray  # it stood as option (B)
    low: float = 0.0
    high: float = 1.0
    thoughts: tuple[str, ...] = ()

    @property
    def probability(self) -> float:
        """The soft label: the mean over principles, of each both orders averaged, then clamped.

        Clamped first, orders that disagree, however unequally sure, would cancel out.
        """
        return float(np.mean(self.by_principle))

    @property
    def by_principle(self) -> np.ndarray:
        """The label under each principle alone, float [k]."""
        return np.clip((self.shown_first + self.shown_second) / 2, self.low, self.high)

    @property
    def singles(self) -> list["Judgement"]:
        """The judgements under each principle alone, without their thoughts."""
        parts = (slice(at, at + 1) for at in range(len(self.shown_first)))
        return [
            Judgement(self.shown_first[at], self.shown_second[at], self.low, self.high)
            for at in parts
        ]


def judgement_of(row: Comparison) -> Judgement:
    """What a labeler said of a comparison, without its thoughts."""
    low, high = row.bounds
    return Judgement(np.array(row.shown_first), np.array(row.shown_second), low, high)


@dataclass(frozen=True)
class LabelerTools:
    """What labelers are made of; each takes what it needs.

    Attributes:
      scorer: of the feedback model.
      generator: samples from the same model.
      open_chat: gives its chat format; what is compiled does not depend on it.
      few_shots: of those that ``Labeler.few_shots`` names.
      sampling: how reasoning is sampled.
      seed: of that sampling.
      reasoning_tokens: the most tokens that a chain of thought may have.
      chains: of thought, for each pair, principle and order; their answers are averaged.
      clamp_low: lowest label that chains of thought may give.
      clamp_high: highest.
      contrast_scale: of a difference of log-likelihoods, in nats a token.
    """

    scorer: Scorer
    generator: Generator
    open_chat: Callable[[], ChatFormat]
    few_shots: FewShots[ChoiceExample]
    sampling: Sampling
    seed: int
    reasoning_tokens: int
    chains: int
    clamp_low: float
    clamp_high: float
    contrast_scale: float


class Labeler(Protocol):
    """Judges pairs."""

    @staticmethod
    def few_shots(constitution: Constitution) -> tuple[ChoiceExample, ...] | None:
        """The few-shots that it can use; None: it uses none."""

    @staticmethod
    def readings(
        pair: ResponsePair, examples: Sequence[ChoiceExample], thought: str
    ) -> list[Reading]:
        """The longest that its model reads of a pair, under each principle.

        Args:
          pair: with all principles.
          examples: the few-shots before it.
          thought: in the place of any reasoning.
        """

    @classmethod
    def make(cls, tools: LabelerTools) -> "Labeler":
        """One that works with these tools."""

    @staticmethod
    def programs(tools: LabelerTools, name: str) -> list[Program]:
        """What judging compiles, known from abstract models alone; names start with ``name``."""

    def judge(self, pairs: Sequence[ResponsePair]) -> list[Judgement]:
        """One judgement a pair."""


def judgements(
    option_a: np.ndarray,
    pairs: Sequence[ResponsePair],
    low: float = 0.0,
    high: float = 1.0,
    thoughts: Sequence[str] = (),
) -> list[Judgement]:
    """Judgements from P(option A) [n] of every pair, principle and order, in that nesting.

    Args:
      option_a: probabilities.
      pairs: that were judged.
      low: lowest label of a principle.
      high: highest.
      thoughts: of every pair, principle, order and chain, in that nesting.
    """
    found, at, chains = [], 0, len(thoughts) // max(1, len(option_a))
    for pair in pairs:
        k = len(pair.principles)
        orders = option_a[at : at + 2 * k].reshape(k, 2)
        reasoned = tuple(thoughts[at * chains : (at + 2 * k) * chains])
        found.append(Judgement(orders[:, 0], 1.0 - orders[:, 1], low, high, reasoned))
        at += 2 * k
    return found
