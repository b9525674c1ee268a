"""Responses are compared by their likelihoods under a principle and under its opposite."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cai_jax.constitution.schema import ChoiceExample, Constitution
from cai_jax.feedback.labeler import Judgement, LabelerTools, ResponsePair, judgements
from cai_jax.generation.scoring import Scorer
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat, Reading
from cai_jax.prompts.messages import Dialogue, split_system, system


@dataclass(frozen=True)
class LikelihoodContrast:
    """Which response is likelier from an assistant that keeps to the principle than from its
    opposite: sigmoid(scale * difference of mean log-likelihood ratios, in nats a token).

    The responses are never shown side by side, so there is no order to be biased by.
    """

    scorer: Scorer
    chat: ChatFormat
    scale: float

    @staticmethod
    def few_shots(constitution: Constitution) -> None:
        """None: it asks no question that an example could answer."""

    @staticmethod
    def readings(
        pair: ResponsePair, examples: Sequence[ChoiceExample], thought: str
    ) -> list[Reading]:
        """Both responses, under each principle and its opposite as system message."""
        return [
            Reading(_under(told, pair.prompt), replies=(pair.first, pair.second))
            for principle in pair.principles
            for told in (principle.principle, principle.opposite)
        ]

    @classmethod
    def make(cls, tools: LabelerTools) -> "LikelihoodContrast":
        """One that works with these tools."""
        return cls(tools.scorer, tools.open_chat(), tools.contrast_scale)

    @staticmethod
    def programs(tools: LabelerTools, name: str) -> list[Program]:
        """What judging compiles."""
        return tools.scorer.logprob_programs(f"{name}: labels")

    def judge(self, pairs: Sequence[ResponsePair]) -> list[Judgement]:
        """Four forward passes per pair and principle, one per response and system prompt.

        A response that is in several pairs under one principle is read once.
        """
        rows = [
            (told, pair.prompt, reply)
            for pair in pairs
            for principle in pair.principles
            for told in (principle.principle, principle.opposite)
            for reply in (pair.first, pair.second)
        ]
        once = list(dict.fromkeys(rows))  # a reply may be in several pairs
        replies = self.chat.replies_ids([reply for _, _, reply in once])
        scored = self.scorer.completion_logprobs(
            self.chat.prompts_ids([_under(told, prompt) for told, prompt, _ in once]),
            [ids[:-1] or ids for ids in replies],  # silence is its end of turn
            name="contrast",
        )
        mean = {row: float(logprobs.mean()) for row, logprobs in zip(once, scored, strict=True)}
        means = np.array([mean[row] for row in rows], np.float64).reshape(-1, 2, 2)
        ratio = means[:, 0] - means[:, 1]  # [pair and principle, response]
        first = 1.0 / (1.0 + np.exp(-self.scale * (ratio[:, 0] - ratio[:, 1])))
        return judgements(np.stack([first, 1 - first], axis=1).reshape(-1), pairs)


def _under(told: str, prompt: Dialogue) -> Dialogue:
    """The prompt to an assistant that is told so; the prompt's own system message comes after."""
    own, turns = split_system(prompt)
    return (system("\n\n".join([told, *(message.text for message in own)])), *turns)
