"""The reward: normalised scores of a preference model."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, Protocol

import numpy as np

from cai_jax.generation.finite import NotFiniteError
from cai_jax.generation.scoring import Scorer
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.critique_revision import parse_reply


class Sampled(Protocol):
    """What was sampled: ids with the stop token if one came, and whether it did."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def finished(self) -> bool: ...


@dataclass(frozen=True)
class Usable:
    """A sampled reply that parses, as far as it is judged.

    Attributes:
      text: what it says.
      ids: what the preference model reads: the very tokens that were sampled, and an end of turn.
      judged: how many of the sampled tokens those are, the stop token included.
    """

    text: str
    ids: list[int]
    judged: int


def usable(chat: ChatFormat, sample: Sampled) -> Usable | None:
    """A sampled reply up to its last whole sentence, if ``parse_reply`` takes it.

    A reply with a special token in it is not usable: its text would hide the token.
    """
    said = sample.ids[:-1] if sample.finished else sample.ids
    text = parse_reply(chat.text(said), sample.finished) if chat.is_text(said) else None
    if text is None:
        return None
    if sample.finished:
        return Usable(text, [*said, chat.end_of_turn], len(sample.ids))
    ids, judged = chat.as_far_as(said, text)
    return Usable(text, [*ids, chat.end_of_turn], judged) if judged else None


@dataclass(frozen=True)
class Reward:
    """Scores of responses: 0 is the mean of SL-CAI samples, 1 their standard deviation, over
    both kinds of prompts.

    Replies that do not parse are not judged: comparisons hold none, so the preference model has
    never read one, and PPO would soon write what it misjudges (seen: rows of emoji).
    """

    scorer: Scorer  # of the preference model
    open_chat: Callable[[], ChatFormat]  # of the policy; what is compiled does not depend on it
    mean: float  # of raw scores
    std: float
    unusable_score: float  # of a reply that does not parse, where it has no others to compare with

    def __post_init__(self) -> None:
        """Refuses a normalisation by which no score is a number.

        Raises:
          ValueError: the mean is not finite, or the deviation is none.
        """
        if not (np.isfinite(self.mean) and 0 < self.std < np.inf):
            origin = self.scorer.origin
            raise ValueError(
                f"{origin.name} has score_mean {self.mean} and score_std {self.std}, by which no "
                f"score can be normalised: run {origin.stage or 'pm_train'} again"
            )

    @cached_property
    def chat(self) -> ChatFormat:
        """Of the policy and of the preference model: their tokens are the same."""
        return self.open_chat()

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Usable | str | None],
        name: str = "score",
    ) -> np.ndarray:
        """Float32 scores.

        Args:
          prompts: ids.
          replies: sampled ones as ``usable`` gives them, None where one does not parse; texts are
            judged as finished replies.
          name: label of the progress bar.
        """
        scores = np.full(len(replies), self.unusable_score, np.float32)
        judged = [(i, reply) for i, reply in enumerate(replies) if reply is not None]
        if judged:
            rows = [
                self.chat.judged_ids(prompts[i], reply)
                if isinstance(reply, str)
                else [*prompts[i], *reply.ids]
                for i, reply in judged
            ]
            raw = self.scorer.preference_scores(rows, name)
            at = [i for i, _ in judged]
            scores[at] = (raw - self.mean) / self.std
            if not np.isfinite(scores[at]).all():  # raw scores are: the scorer has seen to that
                raise NotFiniteError(
                    f"{name}: {self.scorer.origin.name} has score_std {self.std}, so small that "
                    f"normalised scores overflow; {self.scorer.origin.remedy}",
                    self.scorer.origin,
                )
        return scores


@dataclass(frozen=True)
class Objective:
    """What RL climbs: the rewards of all groups, each in its own deviations, taken together.

    The mean gives most to the groups whose scores a policy can raise furthest, at the cost of
    others if need be. The minimum is the score of the group that all replies together leave worst
    off (MaxMin-RLHF, Chakraborty et al. 2024): groups are not compared reply by reply, for a
    preference model leaves a constant per prompt free.
    """

    rewards: Mapping[str, Reward]  # by group; one where there are no groups
    take: Literal["mean", "minimum"] = "mean"

    @property
    def chat(self) -> ChatFormat:
        """Of the policy and of all preference models."""
        return next(iter(self.rewards.values())).chat

    @property
    def scorers(self) -> list[Scorer]:
        """Of all preference models."""
        return [reward.scorer for reward in self.rewards.values()]

    @property
    def abstract_params(self) -> tuple[Any, ...]:
        """Parameters of all preference models, by shapes and layouts."""
        return tuple(scorer.abstract_params for scorer in self.scorers)

    def programs(self, name: str, max_tokens: int) -> list[Program]:
        """Their scores: the models are of one architecture, and share their programs."""
        return self.scorers[0].preference_programs(name, max_tokens)

    def by_group(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Usable | str | None],
        name: str = "score",
    ) -> np.ndarray:
        """Float32 [groups, replies]; arguments as of ``Reward``."""
        return np.stack([reward(prompts, replies, name) for reward in self.rewards.values()])

    def together(self, scores: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Float32 [replies], of scores [groups, replies] of one policy.

        ``counted``, bool [replies], are those that say which group is worst off; None: all.
        """
        if self.take == "mean":
            return scores.mean(axis=0)
        some = scores if counted is None else scores[:, counted]
        worst: np.ndarray = scores[some.sum(axis=1).argmin()]
        return worst

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Usable | str | None],
        name: str = "score",
    ) -> np.ndarray:
        """Float32 scores; arguments as of ``Reward``."""
        return self.together(self.by_group(prompts, replies, name))


@dataclass(frozen=True)
class OverRefusal:
    """Scores over those of a plain refusal to the same prompt, which are computed once a prompt."""

    reward: Objective
    refusal: str
    known: dict[tuple[int, ...], np.ndarray] = field(default_factory=dict)  # by ids of the prompt

    def together(self, scores: np.ndarray, counted: np.ndarray | None = None) -> np.ndarray:
        """Float32 [replies], of scores [groups, replies]; arguments as of ``Objective``."""
        return self.reward.together(scores, counted)

    def by_group(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Usable | str | None],
        name: str = "score",
    ) -> np.ndarray:
        """Float32 [groups, replies]; arguments as of ``Reward``."""
        asked = [*map(tuple, prompts)]
        fresh = [prompt for prompt in asked if prompt not in self.known]
        if fresh:
            refusals = [self.refusal] * len(fresh)
            plain = self.reward.by_group(fresh, refusals, f"{name}, refusals")
            self.known.update(zip(fresh, plain.T, strict=True))
        found = self.reward.by_group(prompts, replies, name)
        for i, prompt in enumerate(asked):
            found[:, i] -= self.known[prompt]
        return found

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        replies: Sequence[Usable | str | None],
        name: str = "score",
    ) -> np.ndarray:
        """Float32 scores; arguments as of ``Reward``."""
        return self.together(self.by_group(prompts, replies, name))


def below_usable(
    scores: np.ndarray, replies: Sequence[Usable | None], prompts: Sequence[str], penalty: float
) -> np.ndarray:
    """Scores in which a reply that does not parse earns less than those that do.

    A preference model leaves a constant per prompt free, so a fixed score can be more than all
    that a prompt's replies earn. It is ``penalty`` less than the lowest usable reply to the same
    prompt, or in the batch where there is none to it.

    Args:
      scores: [b] float32, of usable replies.
      replies: None where one does not parse.
      prompts: ids of their prompts.
      penalty: in standard deviations.
    """
    parses, of = np.array([reply is not None for reply in replies]), np.array(prompts)
    scores = scores.copy()
    for i in np.flatnonzero(~parses):
        peers = parses & (of == of[i])
        others = scores[peers if peers.any() else parses]
        scores[i] = (others.min() if len(others) else 0.0) - penalty
    return scores
