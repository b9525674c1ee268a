"""Which principles shaped a run, and what moved the score of a reply, in Markdown."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from cai_jax.data.rows import Comparison, Sample
from cai_jax.evaluation.measure import Evaluation, Measure, Measurement, Section, joined, number
from cai_jax.evaluation.principles import LEAD_LOST, WORDS_CHANGED
from cai_jax.feedback.labeler import judgement_of
from cai_jax.markdown import one_line, table_row
from cai_jax.report.page import table_of

CHAPTERS = ("revision_principles", "feedback_principles")
ORDER = (LEAD_LOST.name, WORDS_CHANGED.name)  # columns that their rows are ordered by


@dataclass(frozen=True)
class Moved:
    """What moved a reply's score away from the mean of the other models' replies to its prompt.

    Attributes:
      group: by whose preference model; empty where there are no groups.
      reply: that is scored.
      others: the replies that it is compared with.
      lead: by how much it scores higher by the head, in standard deviations.
      sources: by how much less that would be without the labels of each principle, and of people.
      comparisons: those without which it would change most, with the same of each.
    """

    group: str
    reply: Sample
    others: Sequence[Sample]
    lead: float
    sources: Mapping[str, float]
    comparisons: Sequence[tuple[Comparison, float]]


def explanation(
    name: str,
    evaluation: Evaluation,
    texts: Mapping[str, Mapping[str, str]],
    moved: Sequence[Moved],
) -> str:
    """The whole text.

    Args:
      name: of the run.
      evaluation: of the run, with the chapters.
      texts: of principles, by chapter and id.
      moved: of the replies that were asked about.
    """
    lines = [f"# What shaped {name}", ""]
    for section in evaluation.sections:
        if section.name in CHAPTERS:
            lines += _chapter(section, evaluation, texts[section.name])
    for one in moved:
        lines += _reply(one, texts["feedback_principles"])
    return "\n".join(lines).rstrip() + "\n"


def _chapter(section: Section, found: Evaluation, texts: Mapping[str, str]) -> Iterator[str]:
    names = [f"{m.name}, %" if m.unit == "share" else m.name for m in section.measures]
    yield from (f"## {section.title}", "")
    yield table_row("", "n", *(name.replace("_", " ") for name in names))
    yield table_row("---", *["---:"] * (1 + len(names)))
    at = next(i for i, m in enumerate(section.measures) if m.name in ORDER)
    rows = sorted(table_of(section, found.measurements), key=lambda row: _rank(row.cells[at]))
    for row in rows:
        cells = (_cell(m, x, row.n) for m, x in zip(section.measures, row.cells, strict=True))
        yield table_row(joined(row.group, row.subject), str(row.n), *cells)
    described = "; ".join(f"{m.name.replace('_', ' ')}: {m.description}" for m in section.measures)
    yield from ("", f"{described}. n: {section.cases}. Brackets are 95 % intervals.")
    yield from ("", f"Given: {section.given}.", "")
    yield from (
        f"- {row.subject}: {one_line(texts[row.subject])}" for row in rows if row.subject in texts
    )
    yield ""


def _rank(cell: Measurement | None) -> float:
    """The largest first, and last what was not measured."""
    return -cell.mean if cell else float("inf")


def _cell(measure: Measure, found: Measurement | None, n: int) -> str:
    """A mean with its interval, and its own number of cases where that is not ``n``."""
    if found is None:
        return ""
    text = number(measure, found.mean)
    if found.low is not None and found.high is not None:
        text += f" [{number(measure, found.low)}, {number(measure, found.high)}]"
    return text if found.n == n else f"{text} n {found.n}"


def _reply(moved: Moved, texts: Mapping[str, str]) -> Iterator[str]:
    of = f", by the preference model of {moved.group}" if moved.group else ""
    yield from (f"## Reply {moved.reply.id}{of}", "")
    yield from (f"> {message.role}: {one_line(message.text)}" for message in moved.reply.prompt)
    yield from (f"> {one.model}: {one_line(one.response)}" for one in (moved.reply, *moved.others))
    others = ", ".join(one.model for one in moved.others)
    yield ""
    yield (
        f"By the head it scores {moved.lead:+.2f} standard deviations against the mean of "
        f"{others}. Without the labels of each source that would be less by:"
    )
    yield from (
        "",
        table_row("whose labels", "moved it by", "text"),
        table_row("---", "---:", "---"),
    )
    for source, added in sorted(moved.sources.items(), key=lambda item: -abs(item[1])):
        yield table_row(source, f"{added:+.2f}", texts.get(source, ""))
    yield from ("", "The comparisons that moved it most, one by one and to first order:", "")
    for row, added in moved.comparisons:
        labels = zip(row.principle_ids, judgement_of(row).by_principle, strict=True)
        under = ", ".join(f"{principle} {label:.2f}" for principle, label in labels)
        yield f"- {row.id}, {added:+.3f}. P(first is better): {under}"
        yield from (f"  - {message.role}: {one_line(message.text)}" for message in row.prompt)
        yield f"  - first: {one_line(row.response_first)}"
        yield f"  - second: {one_line(row.response_second)}"
    yield ""
