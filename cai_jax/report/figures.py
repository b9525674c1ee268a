"""Figures as inline SVG."""

import io
import textwrap
from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.text import Text

from cai_jax.evaluation.measure import Measure, Measurement
from cai_jax.evaluation.preference import headline_score
from cai_jax.evaluation.statistics import Estimate
from cai_jax.report.summary import Summary

INK, ACCENT, SECOND = "#1d2733", "#2563a8", "#c2571a"
COLOURS = (ACCENT, SECOND, "#2f855a", "#7b4fa3", "#b7791f")

Interval = Estimate | Measurement


def _svg(figure: Figure) -> str:
    """The SVG element of a figure."""
    FigureCanvasSVG(figure)
    for written in figure.findobj(Text):  # by users: a "$" in a name begins no formula
        written.set_parse_math(False)
    buffer = io.StringIO()
    # Without a date, so that the same run renders the same page.
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _axes(width: float = 4.6, height: float = 2.8) -> tuple[Figure, Axes]:
    """An empty figure of this size in inches, in the style of the page."""
    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=INK, labelsize=8)
    axes.yaxis.grid(True, color="#e3e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    return figure, axes


def score_by_policy(summary: Summary) -> str:
    """Mean scores with 95 % intervals: one colour per prompt set, one column per policy."""
    figure, axes = _axes()
    names, judge = summary.policies, headline_score(summary.evaluation).name
    for shift, group, colour in ((-0.08, "red_team", ACCENT), (0.08, "helpful", SECOND)):
        scores = [
            summary.evaluation.measurements[f"preference.{judge}/{name}/{group}"] for name in names
        ]
        label = f"{group.replace('_', '-')} prompts"
        _points(axes, [x + shift for x in range(len(names))], scores, colour, label)
    axes.set_xticks(range(len(names)), names.values())
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel("preference-model score", fontsize=8, color=INK)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def score_by_round(summary: Summary) -> str:
    """Mean scores with 95 % intervals: of the first response, then of each revision."""
    figure, axes = _axes()
    found = summary.evaluation.measurements
    scores = [found[key] for key in found if key.startswith("revisions.score/")]
    _points(axes, range(len(scores)), scores, ACCENT, None)
    axes.plot([score.mean for score in scores], color=ACCENT, lw=1)
    axes.set_xticks(range(len(scores)), ["response", *(s.subject for s in scores[1:])])
    axes.set_ylabel("preference-model score", fontsize=8, color=INK)
    return _svg(figure)


def history_of(history: Sequence[Mapping[str, float]], measure: Measure) -> str:
    """A metric over the steps of training."""
    figure, axes = _axes()
    steps = [step for step, row in enumerate(history) if measure.name in row]  # that were done
    values = [history[step][measure.name] for step in steps]
    axes.plot([step + 1 for step in steps], values, color=ACCENT, marker="o", ms=3)
    axes.set_xlabel("step", fontsize=8, color=INK)
    axes.set_ylabel(f"{measure.name}, {measure.unit}".strip(", "), fontsize=8, color=INK)
    axes.locator_params(axis="x", integer=True)
    return _svg(figure)


def over_optimisation(summary: Summary) -> str:
    """Scores of the policies on the way by the preference model that RL climbs and the other."""
    figure, axes = _axes()
    section = next(s for s in summary.evaluation.sections if s.name == "over_optimisation")
    found = summary.evaluation.measurements
    for measure, colour in zip(section.measures[:2], COLOURS, strict=False):
        curve = {
            int(who.split()[-1]): found[key]
            for who in section.subjects
            if (key := section.key(measure.name, who, "")) in found
        }
        _points(axes, list(curve), list(curve.values()), colour, measure.description)
        axes.plot(list(curve), [point.mean for point in curve.values()], color=colour, lw=1)
    axes.set_xlabel("iteration", fontsize=8, color=INK)
    axes.set_ylabel("standard deviations", fontsize=8, color=INK)
    figure.legend(loc="outside lower center", frameon=False, fontsize=8)
    return _svg(figure)


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
    axes.set_xlabel(axis, fontsize=8, color=INK)
    axes.set_ylabel(unit, fontsize=8, color=INK)
    axes.set_title(title, fontsize=9, color=INK, loc="left")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return _svg(figure)


def _points(
    axes: Axes, xs: Sequence[float], estimates: Sequence[Interval], colour: str, label: str | None
) -> None:
    """Draws means with error bars from low to high."""
    means = [e.mean for e in estimates]
    below = [e.mean - (e.mean if e.low is None else e.low) for e in estimates]
    above = [(e.mean if e.high is None else e.high) - e.mean for e in estimates]
    axes.errorbar(
        xs, means, yerr=[below, above], fmt="o", ms=5, color=colour, capsize=3, label=label
    )
