"""What summary.json holds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai_jax.data.overlap import Overlap
from cai_jax.evaluation.measure import Evaluation
from cai_jax.reading import validated

Metrics = dict[str, Any]  # that a stage leaves in its manifest
SKIPPED = "skipped_steps"  # among them; where there are groups, each has one of its own


@dataclass(frozen=True)
class Supervision:
    """All that people wrote for a run to learn from."""

    critique_revision_principles: int
    feedback_principles: int
    few_shots: int
    demonstrations: int  # of critiques, revisions and choices
    labelled_helpfulness_pairs: int
    human_harm_labels_trained_on: int


@dataclass(frozen=True)
class StageTime:
    """What a stage took."""

    seconds: float
    tokens: int
    tokens_per_second: float
    compile_seconds: float = 0.0  # of ``seconds``; 0 in runs of earlier versions


@dataclass(frozen=True)
class ConstitutionVersion:
    """Which constitution it was."""

    name: str
    version: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything measured in a run, with what it was measured on.

    Metrics of a stage are None where the run has none, or where it is still to come.
    """

    supervision: Supervision
    splits: Overlap
    stages: dict[str, StageTime]
    policies: dict[str, str]  # names that people read
    pretrain: Metrics | None
    sl_data: Metrics | None
    sl_train: Metrics | None
    red_team: Metrics | None
    feedback: Metrics | None
    pm_train: Metrics | None
    second_model: Metrics | None
    rl: Metrics | None
    evaluation: Evaluation
    constitution: ConstitutionVersion
    groups: dict[str, ConstitutionVersion]  # empty where there is one constitution
    seed: int
    devices: str
    versions: dict[str, str]
    config: dict[str, Any]
    # Summaries of earlier versions have none of these.
    left_out: dict[str, int] = field(default_factory=dict)  # rows too long, by field of config.data
    warm_up: Metrics | None = None

    @property
    def skipped_steps(self) -> dict[str, int]:
        """How many updates a stage's training left out, by stage, or stage and group; none is 0."""
        trained = ("pretrain", "warm_up", "sl_train", "pm_train", "second_model", "rl")
        return {
            f"{stage}{key.removeprefix(SKIPPED)}": count
            for stage in trained
            for key, count in (getattr(self, stage) or {}).items()
            if key.startswith(SKIPPED) and count
        }


def read_summary(file: Path) -> Summary:
    """The summary of a finished run.

    Raises:
      OSError: there is no such file.
      ValueError: it is not a summary of this version.
    """
    return validated(Summary, file)
