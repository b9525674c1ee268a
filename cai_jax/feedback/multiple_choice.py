"""Both responses are options of a question; the label is the probability of the letter."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cai_jax.constitution.schema import ChoiceExample, Constitution
from cai_jax.feedback.labeler import Judgement, LabelerTools, ResponsePair, judgements
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_rng
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat, Reading
from cai_jax.prompts.feedback import ANSWER, LETTERS, choice_messages
from cai_jax.prompts.few_shots import FewShots, balanced
from cai_jax.prompts.messages import Dialogue


@dataclass(frozen=True)
class MultipleChoice:
    """Soft labels from the probabilities of the letters (Bai et al. 2022, section 4.1)."""

    scorer: Scorer
    chat: ChatFormat
    shots: FewShots[ChoiceExample]

    @staticmethod
    def few_shots(constitution: Constitution) -> tuple[ChoiceExample, ...]:
        """Questions that are answered at once."""
        return constitution.choice_examples

    @staticmethod
    def readings(
        pair: ResponsePair, examples: Sequence[ChoiceExample], thought: str
    ) -> list[Reading]:
        """The question, up to its letter."""
        return questions(pair, examples, ANSWER)

    @classmethod
    def make(cls, tools: LabelerTools) -> "MultipleChoice":
        """One that works with these tools."""
        return cls(tools.scorer, tools.open_chat(), tools.few_shots)

    @staticmethod
    def programs(tools: LabelerTools, name: str) -> list[Program]:
        """What judging compiles."""
        return tools.scorer.choice_programs(f"{name}: labels", len(LETTERS))

    def judge(self, pairs: Sequence[ResponsePair]) -> list[Judgement]:
        """One forward pass per pair, principle and order."""
        rows = self.chat.prompts_ids(both_orders(self.shots, pairs), ANSWER)
        return judgements(letter_probabilities(self.scorer, self.chat, rows), pairs)


def questions(pair: ResponsePair, examples: Sequence[ChoiceExample], prefill: str) -> list[Reading]:
    """The question of each principle after few-shots, in one order of the responses."""
    return [
        Reading(
            choice_messages(examples, pair.prompt, p.question, pair.first, pair.second), prefill
        )
        for p in pair.principles
    ]


def both_orders(shots: FewShots[ChoiceExample], pairs: Sequence[ResponsePair]) -> list[Dialogue]:
    """The questions of every pair and principle, each in both orders of the responses.

    Position bias can so be averaged out, and measured. A pair has few-shots of its own, whose
    answers are balanced lest they add to the bias.
    """

    def examples(pair: ResponsePair) -> list[ChoiceExample]:
        rng = named_rng(shots.seed, "few_shots", pair.id, "answers")
        return balanced(shots.draw(pair.id, pair.prompt), rng)

    return [
        choice_messages(drawn, pair.prompt, principle.question, *options)
        for pair in pairs
        for drawn in (examples(pair),)
        for principle in pair.principles
        for options in ((pair.first, pair.second), (pair.second, pair.first))
    ]


def letter_probabilities(
    scorer: Scorer, chat: ChatFormat, rows: Sequence[Sequence[int]]
) -> np.ndarray:
    """P(A), of A and B alone, as the next token of each row of ids; float [rows]."""
    letters = cast(list[int], chat.tokenizer.convert_tokens_to_ids(list(LETTERS)))
    logprobs = scorer.choice_logprobs(rows, letters)
    return 1.0 / (1.0 + np.exp(logprobs[:, 1] - logprobs[:, 0]))
