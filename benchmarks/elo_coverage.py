"""How often 95 % intervals of Elo ratings hold the truth, in simulated tournaments.

    python benchmarks/elo_coverage.py       # a minute on two cores

Writes benchmarks/results/elo_coverage.json: for each setting 500 tournaments between players of
known strengths, ties and unequal numbers of games included; the share of intervals that hold the
rating, over all players and of the worst one, beside those of the percentile bootstrap over games.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cai_jax.evaluation.elo import SCALE, Games, coded, design_of, fit, rate, to_elo, tournament

OUT = Path(__file__).parent / "results" / "elo_coverage.json"
TOURNAMENTS = 500
RESAMPLES = 200


@dataclass(frozen=True)
class Setting:
    """A kind of tournament."""

    players: int
    fewest_games: int  # of a pair
    most_games: int
    elo_range: float  # between the strongest and the weakest
    tie: float  # how much likelier than either win a tie between equals is
    copies: int = 1  # of every game, that are no evidence of their own


SETTINGS = {
    "three policies": Setting(3, 20, 140, 120, 0.5),
    "few games": Setting(3, 5, 25, 200, 0.5),
    "two players": Setting(2, 10, 60, 200, 0.5),
    "ten checkpoints": Setting(10, 0, 40, 400, 1.0),
    "hardly any ties": Setting(4, 20, 100, 200, 0.05),
    "mostly ties": Setting(4, 40, 150, 150, 6.0),
    "one nearly always wins": Setting(3, 20, 80, 900, 0.3),
    "four samples of a prompt that are alike": Setting(3, 20, 80, 150, 0.5, 4),
}


def simulate(setting: Setting, tournaments: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Shares of intervals that hold the truth."""
    rng = np.random.default_rng(seed)
    truth = np.linspace(-0.5, 0.5, setting.players) * setting.elo_range
    pairs = setting.players * (setting.players - 1) // 2
    hits, boot = np.zeros(setting.players), np.zeros(setting.players)
    width = np.zeros(setting.players)
    for _ in range(tournaments):
        counts = rng.integers(setting.fewest_games, setting.most_games + 1, size=pairs)
        games = tournament(truth / SCALE, np.log(setting.tie), counts, rng)
        unit = np.repeat(np.arange(len(games.outcome)), setting.copies)
        copied = Games(games.first[unit], games.second[unit], games.outcome[unit], unit)
        found = rate(games if setting.copies == 1 else copied, setting.players)
        hits += (found.low <= truth) & (truth <= found.high)
        width += found.high - found.low
        if resamples:
            low, high = percentile_bootstrap(games, setting.players, resamples, rng)
            boot += (low <= truth) & (truth <= high)
    covered = {
        "coverage": hits.mean() / tournaments,
        "coverage_of_worst_player": hits.min() / tournaments,
        "mean_width_elo": width.mean() / tournaments,
    }
    return covered | (
        {"coverage_of_percentile_bootstrap": boot.mean() / tournaments} if resamples else {}
    )


def percentile_bootstrap(
    games: Games, players: int, resamples: int, rng: np.random.Generator
) -> np.ndarray:
    """The usual interval, over games: ends by player; float [2, players]."""
    design, (pair, result) = design_of(players), coded(games, players)
    seen = np.bincount(pair * 3 + result, minlength=design[..., 0].size) / len(pair)
    counts = rng.multinomial(len(pair), seen, size=resamples).reshape(resamples, -1, 3)
    elos = fit(counts, design)[0] @ to_elo(np.eye(players) - 1 / players).T
    return np.quantile(elos, [0.025, 0.975], axis=0)


def main() -> None:
    """Simulates all settings, and writes what it found."""
    results = {}
    for name, setting in SETTINGS.items():
        found = simulate(setting, TOURNAMENTS, RESAMPLES)
        results[name] = vars(setting) | {key: round(float(x), 4) for key, x in found.items()}
        print(name, results[name], flush=True)
    text = {"tournaments": TOURNAMENTS, "resamples_of_bootstrap": RESAMPLES, "settings": results}
    OUT.write_text(json.dumps(text, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
