"""Figures as inline SVG."""

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

INK, ACCENT, SECOND = "#1d2733", "#2563a8", "#c2571a"
COLOURS = (ACCENT, SECOND, "#2f855a", "#7b4fa3", "#b7791f")

Interval = Mapping[str, float]  # mean, low and high: an Estimate as JSON holds it


def _svg(figure: Figure) -> str:
    """The SVG element of a figure."""
    FigureCanvasSVG(figure)
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


def score_by_model(
    models: Mapping[str, Mapping[str, Mapping[str, Any]]], names: Mapping[str, str]
) -> str:
    """Mean scores with 95 % intervals: one colour per prompt set, one column per model.

    Args:
      models: the evaluation of each model, per prompt set ("red_team", "helpful").
      names: label of each model.
    """
    figure, axes = _axes()
    for shift, group, colour, label in (
        (-0.08, "red_team", ACCENT, "red-team prompts"),
        (0.08, "helpful", SECOND, "helpfulness prompts"),
    ):
        estimates = [models[name][group]["score"] for name in names]
        _points(axes, [x + shift for x in range(len(names))], estimates, colour, label)
    axes.set_xticks(range(len(names)), names.values())
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylabel("preference-model score", fontsize=8, color=INK)
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure)


def score_by_round(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Mean scores with 95 % intervals: of the first response, then of each revision."""
    figure, axes = _axes()
    _points(axes, [r["round"] for r in rounds], [r["score"] for r in rounds], ACCENT, None)
    axes.plot(
        [r["round"] for r in rounds], [r["score"]["mean"] for r in rounds], color=ACCENT, lw=1
    )
    labels = ["response" if r["round"] == 0 else f"revision {r['round']}" for r in rounds]
    axes.set_xticks([r["round"] for r in rounds], labels)
    axes.set_ylabel("preference-model score", fontsize=8, color=INK)
    return _svg(figure)


def rl_history(history: Sequence[Mapping[str, float]], key: str, label: str) -> str:
    """The quantity ``key`` over the iterations of PPO."""
    figure, axes = _axes()
    axes.plot(range(1, len(history) + 1), [h[key] for h in history], color=ACCENT, marker="o", ms=3)
    axes.set_xlabel("PPO iteration", fontsize=8, color=INK)
    axes.set_ylabel(label, fontsize=8, color=INK)
    axes.locator_params(axis="x", integer=True)
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
        axes.plot(xs, [e["mean"] for e in estimates], color=colour, lw=1)
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
    means = [e["mean"] for e in estimates]
    errors = [
        [e["mean"] - e["low"] for e in estimates],
        [e["high"] - e["mean"] for e in estimates],
    ]
    axes.errorbar(xs, means, yerr=errors, fmt="o", ms=5, color=colour, capsize=3, label=label)
