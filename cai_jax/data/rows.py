"""Rows that cross the borders of stages; data/records.py writes and reads them.

A row is a frozen dataclass with a unique ``id``. Its annotations are its format on disk: str, int
(int32), float (float32), bool, tuples of the first three of any length, and Dialogue.
"""

from dataclasses import dataclass
from typing import Protocol

from cai_jax.prompts.messages import Dialogue


class Row(Protocol):
    """What all rows have."""

    @property
    def id(self) -> str:
        """Unique within a dataset; TFDS orders rows by its hash."""


@dataclass(frozen=True)
class Revision:
    """One step of one dialogue; round 0 is the first response, which has no principle.

    Attributes:
      tokens: the prompt and the finished response.
      loss_mask: 1 on the response, else 0; as long as ``tokens``.
      raw_critique: the critique as sampled, before parsing.
      raw_response: the response as sampled, before parsing.
    """

    id: str
    prompt_id: str
    prompt: Dialogue
    round: int
    principle_id: str
    critique: str
    response: str
    raw_critique: str
    raw_response: str
    tokens: tuple[int, ...]
    loss_mask: tuple[int, ...]
    seed: int
    model: str
    constitution_sha256: str


@dataclass(frozen=True)
class Comparison:
    """Two responses to a prompt, and the label of the feedback model.

    Attributes:
      purpose: "training", or "second_model" of the preference model that RL never climbs.
      first: ids of the prompt and the first response, as the preference model reads them.
      second: the same of the second response.
      probability: the soft label, P(first is better).
      principle_ids: the k principles that the pair was compared under.
      shown_first: P(first is better) under each principle, the first shown as option (A); [k].
      shown_second: the same with the first shown as option (B); [k].
      bounds: lowest and highest label under a principle, both orders averaged.
      thoughts: what the feedback model reasoned, if the method lets it: as many chains of each
        principle and, of these, of each order, the first shown as option (A) before the other.
    """

    id: str
    purpose: str
    prompt: Dialogue
    response_first: str
    response_second: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    probability: float
    principle_ids: tuple[str, ...]
    shown_first: tuple[float, ...]
    shown_second: tuple[float, ...]
    method: str
    seed: int
    model: str
    feedback_model: str
    constitution_sha256: str
    bounds: tuple[float, ...] = (0.0, 1.0)
    thoughts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """A response of SL-CAI to a helpfulness prompt, which scores are normalised by.

    Attributes:
      tokens: ids of prompt and response, as the preference model reads them.
    """

    id: str
    prompt: Dialogue
    response: str
    tokens: tuple[int, ...]
    seed: int
    model: str


@dataclass(frozen=True)
class Sample:
    """A model's response at evaluation, and its preference-model score.

    Scores of replies to attacks are over that of a plain refusal (config.red_team.refusal).

    Attributes:
      response: what is judged: up to its last whole sentence, or all of it where it has none.
      unjudged: what was sampled after that, until the limit of tokens.
    """

    id: str
    model: str
    set: str
    prompt: Dialogue
    response: str
    finished: bool
    score: float  # by what RL climbs: a preference model, or the groups' together
    second_score: float  # by the one that it does not; 0 where there is none
    group_scores: tuple[float, ...] = ()  # by the preference model of each group, as RL climbs them
    group_second_scores: tuple[float, ...] = ()  # by those that it does not
    unjudged: str = ""


@dataclass(frozen=True)
class TrainingPair:
    """Two dialogues to train a preference on.

    Attributes:
      first: ids of a prompt and a response, as the preference model reads them.
      second: the same with the other response.
      target_ppm: one integer, P(first is better) in parts per million.
      weight_ppm: one integer, the pair's weight in the loss in parts per million.
    """

    id: str
    first: tuple[int, ...]
    second: tuple[int, ...]
    target_ppm: tuple[int, ...]
    weight_ppm: tuple[int, ...]


@dataclass(frozen=True)
class TrainingDialogue:
    """A dialogue to train on where ``loss_mask`` is 1; both are of one length."""

    id: str
    tokens: tuple[int, ...]
    loss_mask: tuple[int, ...]
