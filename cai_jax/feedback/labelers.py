"""Three ways to ask a model which of two responses keeps to a principle.

Each answers with probabilities for every (pair, principle), in both orders of presentation, so
that position bias can be averaged out and measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from cai_jax.constitution.schema import ChoiceExample, FeedbackPrinciple
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.prompts.chat import ChatFormat, conversation
from cai_jax.prompts.feedback import ANSWER, LETTERS, THINK, choice_messages, thought_prefill


@dataclass(frozen=True)
class Comparison:
    """Two responses to a prompt, and the principles to compare them under."""

    id: str
    prompt: str
    first: str
    second: str
    principles: tuple[FeedbackPrinciple, ...]


@dataclass(frozen=True)
class Judgement:
    """P(first is better), float [k], one entry a principle."""

    shown_first: np.ndarray  # the first response stood as option (A)
    shown_second: np.ndarray  # it stood as option (B)

    @property
    def probability(self) -> float:
        """The soft label: both orders and all principles averaged."""
        return float(np.mean((self.shown_first + self.shown_second) / 2))


class Labeler(Protocol):
    """Judges comparisons."""

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """One judgement a comparison."""


@dataclass(frozen=True)
class MultipleChoice:
    """Soft labels from the probabilities of the letters (Bai et al. 2022, section 4.1)."""

    scorer: Scorer
    chat: ChatFormat
    examples: tuple[ChoiceExample, ...]

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """One forward pass per pair, principle and order."""
        rows = [self.chat.prompt_ids(m, ANSWER) for m in _both_orders(self.examples, comparisons)]
        return _judgements(_letter_probabilities(self.scorer, self.chat, rows), comparisons)


@dataclass(frozen=True)
class ChainOfThought:
    """Reasons first, then answers; probabilities are clamped (section 4.1: 40 to 60 %)."""

    generator: Generator
    scorer: Scorer
    chat: ChatFormat
    examples: tuple[ChoiceExample, ...]
    max_new_tokens: int
    sampling: Sampling
    clamp_low: float
    clamp_high: float
    seed: int

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Samples one chain per pair, principle and order."""
        messages = _both_orders(self.examples, comparisons)
        keys = [
            named_key(self.seed, "chain_of_thought", c.id, p.id, order)
            for c in comparisons
            for p in c.principles
            for order in (0, 1)
        ]
        chains = self.generator.generate(
            [self.chat.prompt_ids(m, THINK) for m in messages],
            keys,
            self.max_new_tokens,
            self.sampling,
            "chains of thought",
        )
        # A chain that answers by itself is cut before its answer, which we then read off.
        thoughts = [self.chat.text(c.ids).split(ANSWER.rstrip("("))[0] for c in chains]
        rows = [
            self.chat.prompt_ids(m, thought_prefill(t))
            for m, t in zip(messages, thoughts, strict=True)
        ]
        letters = _letter_probabilities(self.scorer, self.chat, rows)
        return _judgements(np.clip(letters, self.clamp_low, self.clamp_high), comparisons)


@dataclass(frozen=True)
class LikelihoodContrast:
    """Which response is likelier from an assistant that keeps to the principle than from its
    opposite: sigmoid(scale * difference of mean log-likelihood ratios, in nats a token).

    The responses are never shown side by side, so there is no order to be biased by.
    """

    scorer: Scorer
    chat: ChatFormat
    scale: float

    def judge(self, comparisons: Sequence[Comparison]) -> list[Judgement]:
        """Four forward passes per pair and principle, one per response and system prompt."""
        prompts, replies = [], []
        for c in comparisons:
            for p in c.principles:
                for system in (p.principle, p.opposite):
                    for reply in (c.first, c.second):
                        prompts.append(self.chat.prompt_ids(conversation(c.prompt), system=system))
                        ids = self.chat.reply_ids(reply)
                        replies.append(ids[:-1] or ids)  # silence is its end of turn
        scored = self.scorer.completion_logprobs(prompts, replies, name="contrast")
        means = np.array([row.mean() for row in scored], np.float64).reshape(-1, 2, 2)
        ratio = means[:, 0] - means[:, 1]  # [comparison and principle, response]
        first = 1.0 / (1.0 + np.exp(-self.scale * (ratio[:, 0] - ratio[:, 1])))
        return _judgements(np.stack([first, 1 - first], axis=1).reshape(-1), comparisons)


def _both_orders(examples, comparisons: Sequence[Comparison]) -> list:
    return [
        choice_messages(examples, c.prompt, p.question, *options)
        for c in comparisons
        for p in c.principles
        for options in ((c.first, c.second), (c.second, c.first))
    ]


def _letter_probabilities(scorer: Scorer, chat: ChatFormat, rows) -> np.ndarray:
    """P(A), of A and B alone, as the next token of each row."""
    letters = [chat.tokenizer.convert_tokens_to_ids(letter) for letter in LETTERS]
    logprobs = scorer.choice_logprobs(rows, letters)
    return 1.0 / (1.0 + np.exp(logprobs[:, 1] - logprobs[:, 0]))


def _judgements(option_a: np.ndarray, comparisons: Sequence[Comparison]) -> list[Judgement]:
    """From P(option A) of every comparison, principle and order, in that nesting."""
    out, at = [], 0
    for c in comparisons:
        k = len(c.principles)
        orders = option_a[at : at + 2 * k].reshape(k, 2)
        out.append(Judgement(shown_first=orders[:, 0], shown_second=1.0 - orders[:, 1]))
        at += 2 * k
    return out
