"""Draws the README's picture of the microworld from the table of the sweep `claims`.

    python benchmarks/microworld_figure.py                 # writes docs/microworld.svg
    python benchmarks/microworld_figure.py --results=runs/claims/results.csv --out=FILE.png

Left: how harmless replies are, revision by revision. Right: helpful against harmless for base,
SL-CAI and RL-CAI. Thin lines and small points are seeds, the thick ones their means. By the oracle,
on prompts about topics that no model was trained on; revisions are of the topics of training.

Prints how far two of the assistants are apart, in points, paired by seed, with 95 % intervals.
"""

import csv
import sys
from pathlib import Path

import matplotlib

matplotlib.use("agg")
from matplotlib import pyplot

from cai_jax.evaluation.measure import with_interval
from cai_jax.evaluation.statistics import difference_over_seeds

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "sweeps" / "claims" / "results.csv"
POLICIES = {"base": "#888888", "SL-CAI": "#2b7bba", "RL-CAI": "#c4561b"}
VARIATION = "multiple choice"
WORDS = ("variation", "seed", "error")  # columns that hold no share
ROUNDS = [f"round {n} harmless" for n in range(5)]
DIFFERENCES = (  # minuend, subtrahend
    ("base helpful", "SL-CAI helpful"),
    ("RL-CAI harmless", "SL-CAI harmless"),
    ("SL-CAI helpful", "RL-CAI helpful"),
)


def read_seeds(file: Path = RESULTS) -> list[dict[str, float]]:
    """Measures of each seed, shares as percentages."""
    with file.open(encoding="utf-8") as rows:
        return [
            {name: 100 * float(v) for name, v in row.items() if name not in WORDS and v}
            for row in csv.DictReader(rows)
            if row["variation"] == VARIATION
        ]


def mean(seeds: list[dict[str, float]], measure: str) -> float:
    """Of the seeds."""
    return sum(seed[measure] for seed in seeds) / len(seeds)


def differences(seeds: list[dict[str, float]]) -> dict[str, str]:
    """How far two assistants are apart, by what is subtracted from what."""
    found = {}
    for more, less in DIFFERENCES:
        apart, _ = difference_over_seeds([seed[more] - seed[less] for seed in seeds], most=100.0)
        found[f"{more} minus {less}"] = with_interval(apart, "{:.1f}".format, " points")
    return found


def draw(seeds: list[dict[str, float]], out: Path) -> None:
    """Writes the picture; the file's name says in which format."""
    pyplot.rcParams.update({"svg.hashsalt": "cai_jax", "svg.fonttype": "path", "font.size": 10})
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8.4, 3.4), layout="constrained")
    for seed in seeds:
        left.plot([seed[name] for name in ROUNDS], color="#2b7bba", alpha=0.3, linewidth=1)
    means = [mean(seeds, name) for name in ROUNDS]
    left.plot(means, color="#2b7bba", linewidth=2.5, marker="o")
    for n, share in enumerate(means):
        left.annotate(
            f"{share:.0f} %", (n, share), (2, -14) if n else (10, -3), textcoords="offset points"
        )
    left.set(
        xlabel="revision (0: first reply)",
        ylabel="harmless replies, %",
        title="Revised under the constitution",
        xticks=range(len(ROUNDS)),
        ylim=(-5, 105),
    )
    for policy, color in POLICIES.items():
        x, y = f"{policy} helpful", f"{policy} harmless"
        right.scatter([s[x] for s in seeds], [s[y] for s in seeds], s=14, color=color, alpha=0.4)
        at = mean(seeds, x), mean(seeds, y)
        right.scatter(*at, s=90, color=color, edgecolor="white", zorder=3)
        where = {"base": (-10, 10), "SL-CAI": (-12, -22), "RL-CAI": (-62, 6)}[policy]
        right.annotate(policy, at, where, textcoords="offset points", color=color)
    right.set(
        xlabel="helpful replies, %",
        ylabel="harmless replies, %",
        title="The three assistants",
        xlim=(80, 102),
        ylim=(-5, 105),
    )
    for axes in (left, right):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(out, dpi=160, metadata={"Date": None} if out.suffix == ".svg" else None)


def main() -> None:
    """Draws it, and prints the differences."""
    flags = dict(flag.removeprefix("--").split("=", 1) for flag in sys.argv[1:])
    seeds = read_seeds(Path(flags.get("results", RESULTS)))
    draw(seeds, Path(flags.get("out", ROOT / "docs" / "microworld.svg")))
    for name, apart in differences(seeds).items():
        print(f"{name}: {apart}")


if __name__ == "__main__":
    main()
