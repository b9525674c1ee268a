"""As multiple choice, but the model reasons before it answers."""

from collections.abc import Sequence
from dataclasses import dataclass

from cai_jax.constitution.schema import ChoiceExample, Constitution
from cai_jax.feedback.labeler import Judgement, LabelerTools, ResponsePair, judgements
from cai_jax.feedback.multiple_choice import (
    MultipleChoice,
    both_orders,
    letter_probabilities,
    questions,
)
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat, Reading
from cai_jax.prompts.feedback import ANSWER, THINK, thought_prefill
from cai_jax.prompts.few_shots import FewShots


@dataclass(frozen=True)
class ChainOfThought:
    """Reasons first, then answers; labels are clamped (section 4.1: 40 to 60 %)."""

    generator: Generator
    scorer: Scorer
    chat: ChatFormat
    shots: FewShots[ChoiceExample]
    max_new_tokens: int
    sampling: Sampling
    chains: int
    clamp_low: float
    clamp_high: float
    seed: int

    @staticmethod
    def few_shots(constitution: Constitution) -> tuple[ChoiceExample, ...]:
        """Questions that are thought through aloud."""
        return constitution.thought_examples

    @staticmethod
    def readings(
        pair: ResponsePair, examples: Sequence[ChoiceExample], thought: str
    ) -> list[Reading]:
        """The question and the reasoning, up to the letter."""
        return questions(pair, examples, thought_prefill(thought))

    @classmethod
    def make(cls, tools: LabelerTools) -> "ChainOfThought":
        """One that works with these tools."""
        return cls(
            generator=tools.generator,
            scorer=tools.scorer,
            chat=tools.open_chat(),
            shots=tools.few_shots,
            max_new_tokens=tools.reasoning_tokens,
            sampling=tools.sampling,
            chains=tools.chains,
            clamp_low=tools.clamp_low,
            clamp_high=tools.clamp_high,
            seed=tools.seed,
        )

    @staticmethod
    def programs(tools: LabelerTools, name: str) -> list[Program]:
        """What judging compiles."""
        reasoning = tools.generator.programs(
            *(f"{name}: reasoning", tools.reasoning_tokens, tools.sampling),
            shared=tools.few_shots.count > 0,
        )
        return [*reasoning, *MultipleChoice.programs(tools, name)]

    def judge(self, pairs: Sequence[ResponsePair]) -> list[Judgement]:
        """Samples ``chains`` per pair, principle and order, and averages their answers."""
        messages = [m for m in both_orders(self.shots, pairs) for _ in range(self.chains)]
        keys = [
            named_key(self.seed, "chain_of_thought", pair.id, principle.id, order, chain)
            for pair in pairs
            for principle in pair.principles
            for order in (0, 1)
            for chain in range(self.chains)
        ]
        prompts = self.chat.prompts_ids(messages, THINK)
        # All but the question are few-shots, which a pair has in common.
        shared = [
            self.chat.shared_tokens(ids, m[:-1]) for ids, m in zip(prompts, messages, strict=True)
        ]
        sampled = self.generator.generate(
            prompts, keys, self.max_new_tokens, self.sampling, "chains of thought", shared
        )
        # A chain that answers by itself is cut before its answer, which we then read off.
        thoughts = [self.chat.text(c.ids).split(ANSWER.rstrip("("))[0] for c in sampled]
        rows = self.chat.prompts_ids(messages, [thought_prefill(t) for t in thoughts])
        letters = letter_probabilities(self.scorer, self.chat, rows)
        means = letters.reshape(-1, self.chains).mean(axis=1)
        return judgements(means, pairs, self.clamp_low, self.clamp_high, thoughts)
