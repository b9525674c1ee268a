"""One self-contained HTML page; Jinja escapes all model text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cai_jax.prompts.messages import Dialogue
from cai_jax.report.figures import rl_history, score_by_model, score_by_round

MODEL_NAMES = {"base": "base", "sl_cai": "SL-CAI", "rl_cai": "RL-CAI"}


@dataclass(frozen=True)
class TranscriptStep:
    """One critique-revision round."""

    principle_id: str
    critique_request: str
    critique: str
    revision: str


@dataclass(frozen=True)
class Transcript:
    """A dialogue under revision."""

    prompt: Dialogue
    response: str
    steps: list[TranscriptStep]


def render_page(
    summary: Mapping[str, Any],
    history: Sequence[Mapping[str, float]],
    shown: Sequence[Mapping[str, Any]],
    held_out: Sequence[Mapping[str, Any]],
    transcripts: Sequence[Transcript],
) -> str:
    """The report.

    Args:
      summary: as in summary.json.
      history: scalars of every PPO iteration.
      shown: ``prompt`` and ``answers`` of all models to the prompts that are always shown.
      held_out: the same for some held-out red-team prompts.
      transcripts: critique-revision dialogues.
    """
    environment = Environment(
        loader=PackageLoader("cai_jax.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    evaluation = summary["evaluation"]
    figures = {
        "models": score_by_model(evaluation["models"], MODEL_NAMES),
        "rounds": score_by_round(evaluation["revision_rounds"]),
        "score": rl_history(history, "score", "score of the samples"),
        "kl": rl_history(history, "kl_k3", "KL to SL-CAI, nats a response"),
    }
    return environment.get_template("page.html").render(
        s=summary,
        figures={name: Markup(svg) for name, svg in figures.items()},
        names=MODEL_NAMES,
        shown=shown,
        held_out=held_out,
        transcripts=transcripts,
    )
