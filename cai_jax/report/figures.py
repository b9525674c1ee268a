"""Figures, each with the numbers that it shows: as inline SVG, PNG and JSON.

Matplotlib draws them once, in Python. A library that draws in the page would add one to four
megabytes to each, of at most five, and show nothing to a reader without scripts or sight; here the
numbers stand beside each figure, as a table in the page and as JSON.
"""

import io
import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from cai_jax.evaluation.measure import Measure, Measurement, Section
from cai_jax.evaluation.preference import headline_score
from cai_jax.evaluation.statistics import Estimate
from cai_jax.report.summary import Summary

INK, LINE, ACCENT, SECOND = "#1d2733", "#e3e7eb", "#2563a8", "#c2571a"
COLOURS = (ACCENT, SECOND, "#2f855a", "#7b4fa3", "#b7791f")
# In a page, colours follow its light or dark scheme.
THEMED = {INK: "var(--ink)", LINE: "var(--line)"} | {
    colour: f"var(--c{number})" for number, colour in enumerate(COLOURS)
}
SETS = {"red_team": "red-team prompts", "helpful": "helpful prompts"}
CHANCE = 0.5  # of being right about a pair

Interval = Estimate | Measurement


@dataclass
class Drawing:
    """A figure and what it shows.

    Attributes:
      name: of its files.
      caption: says what it shows.
      figure: drawn.
      rows: its points: what they are of, where they stand, and their means and intervals.
    """

    name: str
    caption: str
    figure: Figure
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def columns(self) -> list[str]:
        """Of the rows."""
        return list(dict.fromkeys(name for row in self.rows for name in row))

    @property
    def svg(self) -> str:
        """The SVG element, in the colours and the font of the page that it is put in."""
        found = _svg(self.figure, self.name)
        for colour, variable in THEMED.items():
            found = found.replace(colour, variable)
        return found.replace("<svg ", '<svg aria-hidden="true" ', 1)  # the caption and table tell

    @property
    def png(self) -> bytes:
        """The same on white."""
        FigureCanvasAgg(self.figure)
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=160, facecolor="white")
        return buffer.getvalue()

    @property
    def data(self) -> str:
        """The numbers, as JSON."""
        return json.dumps({"caption": self.caption, "rows": self.rows}, indent=1) + "\n"


def _svg(figure: Figure, name: str = "") -> str:
    """The SVG element of a figure; one with a name has text in the font of its page."""
    FigureCanvasSVG(figure)
    for written in figure.findobj(Text):  # by users: a "$" in a name begins no formula
        written.set_parse_math(False)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none" if name else "path", "svg.hashsalt": name or None}):
        # Without a date, so that the same run renders the same page.
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _axes(width: float = 4.6, height: float = 2.8) -> tuple[Figure, Axes]:
    """An empty figure of this size in inches, in the style of the page."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(INK)
    axes.tick_params(colors=INK, labelsize=8)
    axes.yaxis.grid(True, color=LINE, linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def _label(axes: Axes, x: str, y: str) -> None:
    axes.set_xlabel(x, fontsize=8, color=INK)
    axes.set_ylabel(y, fontsize=8, color=INK)


def drawings(summary: Summary, history: Sequence[Mapping[str, float]]) -> list[Drawing]:
    """What can be drawn of a run as far as it has come.

    Args:
      summary: of the run.
      history: metrics of RL, a row a step.
    """
    sections = {section.name: section for section in summary.evaluation.sections}
    found = list(_of_feedback(summary, sections))
    if "preference" in sections:
        found = [plane(summary), score_by_policy(summary), *found]
    if "revisions" in sections:
        found.append(score_by_round(summary, sections["revisions"]))
    if "over_optimisation" in sections:
        found.append(over_optimisation(summary, sections["over_optimisation"]))
    if "win_rate" in sections:
        found.append(elo(summary, sections["win_rate"]))
    if "feedback_principles" in sections:
        found += _principles(summary, sections["feedback_principles"])
    for measure in sections["rl"].measures if "rl" in sections else ():
        found.append(history_of(history, measure))
    return found


def plane(summary: Summary) -> Drawing:
    """Harmlessness against helpfulness: each policy's mean scores with 95 % intervals."""
    figure, axes = _axes(4.6, 3.6)
    judge = headline_score(summary.evaluation)
    drawing = Drawing("plane", f"Harmless and helpful: score {judge.description}.", figure)
    for number, (policy, name) in enumerate(summary.policies.items()):
        y, x = (
            summary.evaluation.measurements[f"preference.{judge.name}/{policy}/{group}"]
            for group in SETS
        )
        colour = COLOURS[number % len(COLOURS)]
        across, up = _errors([x]), _errors([y])
        axes.errorbar(
            [x.mean], [y.mean], up, across, fmt="o", ms=6, capsize=3, color=colour, label=name
        )
        for group, m in zip(SETS, (y, x), strict=True):
            drawing.rows.append({"of": name, "on": SETS[group]} | _row(m))
    axes.xaxis.grid(True, color=LINE, linewidth=0.8)
    _label(axes, "helpful: score on helpful prompts →", "harmless: score on red-team prompts →")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return drawing


def score_by_policy(summary: Summary) -> Drawing:
    """Mean scores with 95 % intervals: one colour per prompt set, one column per policy."""
    judge = headline_score(summary.evaluation)
    caption = f"Score on held-out prompts, {judge.description}."
    return _by_policy("score", caption, summary, f"preference.{judge.name}", "score")


def elo(summary: Summary, section: Section) -> Drawing:
    """Ratings with 95 % intervals, of every policy and checkpoint that was compared."""
    (measure,) = (m for m in section.measures if m.name == "elo")
    return _by_policy("elo", f"{section.title}: {measure.description}.", summary, "win_rate.elo")


def _by_policy(name: str, caption: str, summary: Summary, key: str, unit: str = "Elo") -> Drawing:
    figure, axes = _axes()
    drawing, names = Drawing(name, caption, figure), summary.policies
    for number, (group, label) in enumerate(SETS.items()):
        found = {
            at: m
            for at, policy in enumerate(names)
            if (m := summary.evaluation.measurements.get(f"{key}/{policy}/{group}"))
        }
        xs = [at + 0.16 * number - 0.08 for at in found]
        _points(axes, xs, list(found.values()), COLOURS[number], label)
        policies = list(names.values())
        drawing.rows += [{"of": policies[at], "on": label} | _row(m) for at, m in found.items()]
    ticks = [textwrap.fill(label, 10) for label in names.values()]
    axes.set_xticks(range(len(names)), ticks)
    axes.set_xlim(-0.5, len(names) - 0.5)
    _label(axes, "", unit)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8, labelcolor=INK)
    return drawing


def score_by_round(summary: Summary, section: Section) -> Drawing:
    """Mean scores with 95 % intervals: of the first response, then of each revision."""
    figure, axes = _axes()
    drawing = Drawing("revisions", "Score of the first response and of each revision.", figure)
    found = summary.evaluation.measurements
    keys = (section.key("score", subject, "") for subject in section.subjects)
    scores = [found[key] for key in keys if key in found]
    _points(axes, range(len(scores)), scores, ACCENT, None)
    axes.plot([score.mean for score in scores], color=ACCENT, lw=1)
    names = ["response", *(score.subject for score in scores[1:])]
    axes.set_xticks(range(len(scores)), names)
    _label(axes, "", "score")
    drawing.rows += [{"of": n} | _row(m) for n, m in zip(names, scores, strict=True)]
    return drawing


def history_of(history: Sequence[Mapping[str, float]], measure: Measure) -> Drawing:
    """A metric over the steps of training."""
    figure, axes = _axes()
    caption = f"{measure.name} during training: {measure.description}."
    drawing = Drawing(f"rl_{measure.name}", caption, figure)
    steps = [step for step, row in enumerate(history) if measure.name in row]  # that were done
    values = [history[step][measure.name] for step in steps]
    axes.plot([step + 1 for step in steps], values, color=ACCENT, marker="o", ms=3)
    _label(axes, "step", f"{measure.name}, {measure.unit}".strip(", "))
    axes.locator_params(axis="x", integer=True)
    drawing.rows += [{"step": s + 1, "value": v} for s, v in zip(steps, values, strict=True)]
    return drawing


def over_optimisation(summary: Summary, section: Section) -> Drawing:
    """Scores of the policies on the way by the preference model that RL climbs and the other."""
    figure, axes = _axes()
    caption = (
        "Over-optimisation: what RL climbs, and what a model that it does not know says; the gap "
        "between them is shaded."
    )
    drawing, found = Drawing("over_optimisation", caption, figure), summary.evaluation.measurements
    curves = []
    for measure, colour in zip(section.measures[:2], COLOURS, strict=False):
        curve = {
            int(who.split()[-1]): found[key]
            for who in section.subjects
            if (key := section.key(measure.name, who, "")) in found
        }
        _points(axes, list(curve), list(curve.values()), colour, measure.description)
        axes.plot(list(curve), [point.mean for point in curve.values()], color=colour, lw=1)
        drawing.rows += [{"of": measure.name, "iteration": i} | _row(m) for i, m in curve.items()]
        curves.append([point.mean for point in curve.values()])
    reward, second = curves
    axes.fill_between(list(curve), reward, second, color=COLOURS[4], alpha=0.2, lw=0)
    _label(axes, "iteration", "standard deviations")
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8, labelcolor=INK)
    return drawing


def _of_feedback(summary: Summary, sections: Mapping[str, Section]) -> Iterator[Drawing]:
    """Who is right about pairs that people labelled: the feedback model, and what it teaches."""
    if summary.feedback and (audits := summary.feedback["audit"]):
        rows = dict[str, Interval]()
        for name, audit in audits.items():
            low, high = audit["accuracy_low"], audit["accuracy_high"]
            rows[f"feedback model, {name}"] = Estimate(audit["accuracy"], low, high)
            if "bag_of_words" in audit:
                for baseline in ("bag_of_words", "length"):
                    mean = Estimate(audit[baseline], None, None)
                    rows[f"{baseline.replace('_', ' ')}, {name}"] = mean
        caption = "Who is right about labelled pairs; baselines understand nothing."
        yield _shares("audit", caption, rows)
        # Runs of earlier versions have none.
        if bins := {
            name: audit["reliability"] for name, audit in audits.items() if "reliability" in audit
        }:
            yield _reliability(bins)
    if "preference_model" in sections:
        section, found = sections["preference_model"], summary.evaluation.measurements
        rows = {
            subject: found[key]
            for subject in section.subjects
            if (key := section.key("accuracy", subject, "")) in found
        }
        if rows:
            caption = "How often the preference model is right about held-out labelled pairs."
            yield _shares("preference_model", caption, rows)


def _reliability(audits: Mapping[str, Sequence[Mapping[str, float]]]) -> Drawing:
    """How often the first reply is the better one, where the label says how likely it is."""
    figure, axes = _axes(4.6, 3.6)
    caption = "Are labels as sure as they should be? Labelled pairs by label; dashed: calibrated."
    drawing = Drawing("reliability", caption, figure)
    axes.plot([0, 1], [0, 1], color=INK, lw=1, ls="--")
    for number, (name, bins) in enumerate(audits.items()):
        shares = [Estimate(b["share"], b["share_low"], b["share_high"]) for b in bins]
        labels = [b["label"] for b in bins]
        _points(axes, labels, shares, COLOURS[number % len(COLOURS)], name)
        for b, share in zip(bins, shares, strict=True):
            row = {"of": name, "label": b["label"]} | _row(share) | {"n": b["pairs"]}
            drawing.rows.append(row)
    axes.set_xlim(-0.03, 1.03)
    axes.set_ylim(-0.03, 1.03)
    _label(axes, "label: P(first is better)", "share whose first is better")
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8, labelcolor=INK)
    return drawing


def _principles(summary: Summary, section: Section) -> Iterator[Drawing]:
    """How often principles agree with the label, those that do least last."""
    found = summary.evaluation.measurements
    rows = {
        subject: found[key]
        for subject in section.subjects[1:]  # the first is all of them
        if (key := section.key("agreement", subject, "")) in found
    }
    if rows:
        ordered = dict(sorted(rows.items(), key=lambda row: -row[1].mean))
        caption = "How often labels of other principles are on a principle's side, pair by pair."
        yield _shares("agreement", caption, ordered)


def _shares(name: str, caption: str, rows: Mapping[str, Interval]) -> Drawing:
    """Shares with their intervals, one below the other, beside that of chance."""
    figure, axes = _axes(4.6, 0.9 + 0.24 * max(len(rows), 3))
    ys = range(len(rows))[::-1]
    shares = [100 * row.mean for row in rows.values()]
    errors = [[100 * e for e in end] for end in _errors(list(rows.values()))]
    axes.errorbar(shares, ys, xerr=errors, fmt="o", ms=5, color=ACCENT, capsize=3)
    axes.axvline(100 * CHANCE, color=SECOND, lw=1, ls="--")
    axes.set_yticks(ys, [textwrap.shorten(row, 34, placeholder="…") for row in rows])
    axes.set_xlim(-3, 103)
    _label(axes, "%, dashed: chance", "")
    return Drawing(name, caption, figure, [{"of": n} | _row(m) for n, m in rows.items()])


def measures_by_variation(
    curves: Mapping[str, Sequence[Interval]],
    names: Sequence[str],
    title: str,
    axis: str,
    unit: str,
) -> str:
    """Means with 95 % intervals: one colour per measure, one column per variation.

    Args:
      curves: one interval per variation, by measure.
      names: of the variations.
      title: of the figure.
      axis: label of the variations.
      unit: label of the measures.
    """
    figure, axes = _axes(5.6, 3.2)
    for number, (measure, estimates) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        xs = [x + 0.06 * (number - (len(curves) - 1) / 2) for x in range(len(names))]
        _points(axes, xs, estimates, colour, measure)
        axes.plot(xs, [e.mean for e in estimates], color=colour, lw=1)
    axes.set_xticks(range(len(names)), [textwrap.fill(name, 14) for name in names])
    _label(axes, axis, unit)
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return _svg(figure)


def _points(
    axes: Axes, xs: Sequence[float], estimates: Sequence[Interval], colour: str, label: str | None
) -> None:
    """Draws means with error bars from low to high."""
    means, errors = [e.mean for e in estimates], _errors(estimates)
    axes.errorbar(xs, means, yerr=errors, fmt="o", ms=5, color=colour, capsize=3, label=label)


def _errors(estimates: Sequence[Interval]) -> list[list[float]]:
    """How far intervals reach below and above their means; 0 where there is none.

    Rounding puts the end of a Wilson interval a hair inside a mean of 0 or 1.
    """
    below = [0.0 if e.low is None else max(e.mean - e.low, 0.0) for e in estimates]
    above = [0.0 if e.high is None else max(e.high - e.mean, 0.0) for e in estimates]
    return [below, above]


def _row(found: Interval) -> dict[str, Any]:
    """The numbers of a point."""
    row = {"mean": found.mean, "low": found.low, "high": found.high}
    return row | ({"n": found.n} if isinstance(found, Measurement) else {})
