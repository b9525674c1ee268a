"""One self-contained HTML page; Jinja escapes all model text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cai_jax.data.rows import Revision, Sample
from cai_jax.evaluation.groups import gains
from cai_jax.evaluation.measure import Measurement, Section, number
from cai_jax.evaluation.preference import headline, headline_score
from cai_jax.prompts.messages import Dialogue
from cai_jax.report.figures import (
    history_of,
    over_optimisation,
    score_by_policy,
    score_by_round,
)
from cai_jax.report.summary import Summary


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


def render_page(
    summary: Summary,
    history: Sequence[Mapping[str, float]],
    shown: Mapping[Dialogue, Sequence[Sample]],
    held_out: Mapping[Dialogue, Sequence[Sample]],
    transcripts: Sequence[Sequence[Revision]],
    requests: Mapping[str, str],
) -> str:
    """The report.

    Args:
      summary: as in summary.json.
      history: metrics of RL, a row a step.
      shown: replies of all policies to the prompts that are always shown.
      held_out: the same for some held-out red-team prompts.
      transcripts: dialogues of critique and revision, round by round.
      requests: for a critique, by principle.
    """
    environment = Environment(
        loader=PackageLoader("cai_jax.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = summary.policies
    environment.filters["label"] = lambda text: " ".join(names.get(w, w) for w in text.split())
    found = summary.evaluation
    metrics = [m for section in found.sections if section.name == "rl" for m in section.measures]
    figures = {
        f"Score on held-out prompts, {headline_score(found).description}.": score_by_policy(
            summary
        ),
        "Score of the first response and of each revision.": score_by_round(summary),
    }
    if any(section.name == "over_optimisation" for section in found.sections):
        caption = "Over-optimisation: what RL climbs, and what a model that it does not know says."
        figures[caption] = over_optimisation(summary)
    figures |= {
        f"{m.name} during training: {m.description}.": history_of(history, m) for m in metrics
    }
    return environment.get_template("page.html").render(
        s=summary,
        figures={caption: Markup(svg) for caption, svg in figures.items()},
        tables=[(section, table_of(section, found.measurements)) for section in found.sections],
        number=number,
        headline=headline(found),
        gains=gains(found),
        headline_score=headline_score(found),
        shown=shown,
        held_out=held_out,
        transcripts=transcripts,
        requests=requests,
    )
