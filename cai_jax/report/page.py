"""One self-contained HTML page; Jinja escapes all model text, and nothing is asked of a network."""

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cai_jax.data.rows import Sample
from cai_jax.evaluation.groups import gains
from cai_jax.evaluation.measure import (
    PROMPT_SETS,
    Evaluation,
    Measure,
    Measurement,
    Section,
    number,
)
from cai_jax.evaluation.preference import headline, headline_score
from cai_jax.prompts.messages import Dialogue
from cai_jax.report.figures import Drawing
from cai_jax.report.summary import Metrics, Summary
from cai_jax.report.transcripts import Transcript, embedded

COUNTED = (  # stages whose metrics count rows
    *("pretrain", "warm_up", "sl_data", "sl_train", "red_team"),
    *("feedback", "pm_train", "second_model", "rl"),
)
NO_COUNTS = ("steps", "iteration")  # parts of names of those that do not


@dataclass(frozen=True)
class TableRow:
    """One subject on one group; a cell is None where a measure is not taken."""

    group: str
    subject: str
    cells: list[Measurement | None]

    @property
    def n(self) -> int:
        """Cases, at most."""
        return max(cell.n for cell in self.cells if cell)


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a page tells of a run, as far as it has come.

    Attributes:
      summary: as in summary.json.
      drawings: the figures.
      shown: replies of all policies to the prompts that are always shown.
      transcripts: of all kinds.
      most_transcripts: of each kind that the page holds.
      principles: what they ask, by id.
      manifests: of finished stages.
      settings: fields of the config with their values and defaults, where these differ.
      left: stages that are still to be made.
    """

    summary: Summary
    drawings: Sequence[Drawing]
    shown: Mapping[Dialogue, Sequence[Sample]]
    transcripts: Sequence[Transcript]
    most_transcripts: int
    principles: Mapping[str, str]
    manifests: Mapping[str, Mapping[str, Any]]
    settings: Sequence[tuple[str, Any, Any]] = ()
    left: Sequence[str] = ()


def table_of(section: Section, measurements: Mapping[str, Measurement]) -> list[TableRow]:
    """What an evaluator measured: a column a measure, group by group, without empty rows."""
    groups = dict.fromkeys(group for measure in section.measures for group in measure.groups)
    rows = []
    for group in groups:
        for subject in section.subjects:
            keys = (section.key(measure.name, subject, group) for measure in section.measures)
            if any(cells := [measurements.get(key) for key in keys]):
                rows.append(TableRow(group, subject, cells))
    return rows


def render_page(report: Report) -> str:
    """The page of a run."""
    summary, names = report.summary, report.summary.policies
    found, measured = summary.evaluation, bool(summary.evaluation.sections)
    return render(
        "page.html",
        label=lambda text: " ".join(names.get(w, w) for w in text.split()),
        r=report,
        s=summary,
        tables=[(section, table_of(section, found.measurements)) for section in found.sections],
        headline=headline(found) if measured else {},
        gains=gains(found),
        headline_score=headline_score(found) if measured else None,
        columns=list(headline_columns(found)) if measured else [],
        counts=list(counts_of(summary)),
        transcripts=Markup(
            embedded(report.transcripts, report.principles, report.most_transcripts)
        ),
    )


def render(template: str, label: Any, **given: Any) -> str:
    """A page in our style.

    Args:
      template: beside this file.
      label: gives subjects the names that people read.
      given: what the template shows.
    """
    environment = Environment(
        loader=PackageLoader("cai_jax.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["label"] = label
    script, style = (_beside(name) for name in ("page.js", "page.css"))
    digest = base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    own = {"script": Markup(script), "style": Markup(style), "script_sha256": digest}
    return environment.get_template(template).render(**given, **own, number=number)


def headline_columns(found: Evaluation) -> Iterator[tuple[str, Measure, str]]:
    """What is told of every policy first: section, measure and prompts, as far as measured."""
    first = {"oracle": None, "preference": headline_score(found).name, "win_rate": "elo"}
    sections = {section.name: section for section in found.sections}
    for name, wanted in first.items():
        for measure in sections[name].measures if name in sections else ():
            for group in PROMPT_SETS:
                if wanted in (None, measure.name) and group in measure.groups:
                    yield sections[name].name, measure, group


def counts_of(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Of how many rows stages tell, by stage and what they are."""
    for stage in COUNTED:
        metrics: Metrics = getattr(summary, stage) or {}
        for name, value in metrics.items():
            if any(part in name for part in NO_COUNTS):
                continue
            if isinstance(value, int) and not isinstance(value, bool):
                yield stage, name, f"{value:,}"
            elif isinstance(value, dict) and all(isinstance(n, int) for n in value.values()):
                told = (f"{n:,} {kind}" for kind, n in value.items())
                yield stage, name, ", ".join(told) or "none"
            elif isinstance(value, list) and all(isinstance(n, int) for n in value):
                yield stage, name, ", ".join(f"{n:,}" for n in value)


def _beside(name: str) -> str:
    """A file of this package."""
    return (resources.files("cai_jax.report") / name).read_text(encoding="utf-8")
