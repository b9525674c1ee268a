"""Elo ratings: right, finite, and intervals that hold the truth as often as they say."""

import json

import numpy as np
import pytest
from conftest import ROOT
from scipy import optimize

from cai_jax.evaluation.elo import SCALE, Games, rate, tournament


def games(*rows):
    first, second, outcome = map(np.array, zip(*rows, strict=True))
    return Games(first, second, outcome)


def test_ratings_are_those_of_davidsons_likelihood():
    """Of many games, where pseudo-counts hardly weigh; maximised by another method."""
    found = tournament(
        [0.4, -0.9, 0.5], -0.7, np.array([4000, 2500, 6000]), np.random.default_rng(0)
    )

    def loss(x):
        strength, tie = np.exp([0, x[0], x[1]]), np.exp(x[2])
        a, b = strength[found.first], strength[found.second]
        total = a + b + tie * np.sqrt(a * b)
        odds = np.where(
            found.outcome == 1, a, np.where(found.outcome == 0, b, tie * np.sqrt(a * b))
        )
        return -np.sum(np.log(odds / total))

    best = np.array([0, *optimize.minimize(loss, np.zeros(3)).x[:2]])
    ours = rate(found, 3)
    np.testing.assert_allclose(ours.elo, SCALE * (best - best.mean()), atol=0.2)
    assert ours.elo.sum() == pytest.approx(0, abs=1e-6)


def test_odds_of_ten_to_one_are_400():
    ours = rate(games(*[(0, 1, 1)] * 50_000, *[(0, 1, 0)] * 5_000), 2)
    assert ours.elo[0] - ours.elo[1] == pytest.approx(400, abs=1)


def test_a_player_that_never_loses_has_a_finite_rating():
    few, many = (rate(games(*[(1, 0, 1)] * n, (0, 2, 1), (2, 0, 1)), 3) for n in (5, 50))
    for found in (few, many):
        assert np.isfinite([found.elo, found.low, found.high]).all()
        assert found.elo[1] == found.elo.max()
    assert many.elo[1] > few.elo[1]
    assert few.high[1] - few.low[1] > 300  # so few games tell little


def test_who_stands_first_does_not_matter():
    one = rate(games((0, 1, 1), (1, 2, 0.5), (0, 2, 0)), 3)
    other = rate(games((1, 0, 0), (2, 1, 0.5), (2, 0, 1)), 3)
    np.testing.assert_allclose(one.elo, other.elo)


def test_a_player_without_games_is_hardly_known():
    found = rate(games(*[(0, 1, 1), (0, 1, 0)] * 20), 3)
    assert found.elo[2] == pytest.approx(0, abs=1e-6)
    assert found.high[2] - found.low[2] > 3 * (found.high[0] - found.low[0]) / 2


def test_games_on_one_prompt_count_once():
    plain = tournament([0.5, 0.0, -0.5], -0.7, np.array([40, 40, 40]), np.random.default_rng(1))
    which = np.repeat(np.arange(120), 4)
    copies = Games(plain.first[which], plain.second[which], plain.outcome[which])
    units = Games(copies.first, copies.second, copies.outcome, which)
    width = lambda given: np.mean(rate(given, 3).high - rate(given, 3).low)
    assert width(copies) == pytest.approx(width(plain) / 2, rel=0.05)
    assert width(units) == pytest.approx(width(plain), rel=0.1)


@pytest.mark.parametrize("rows", [(0, 1, 0.7), (1, 1, 1)])
def test_what_is_no_game_is_refused(rows):
    with pytest.raises(ValueError, match="elo: "):
        rate(games(rows), 2)
    with pytest.raises(ValueError, match="no games"):
        rate(Games(np.array([]), np.array([]), np.array([])), 2)


@pytest.mark.parametrize(("elo_range", "tie", "fewest"), [(150, 0.5, 20), (500, 0.1, 5)])
def test_intervals_hold_the_truth(elo_range, tie, fewest):
    """The 500 tournaments of every setting are in benchmarks/elo_coverage.py."""
    rng, truth = np.random.default_rng(0), np.linspace(-0.5, 0.5, 3) * elo_range
    hits = []
    for _ in range(500):
        counts = rng.integers(fewest, 80, size=3)
        found = rate(tournament(truth / SCALE, np.log(tie), counts, rng), 3)
        hits.append((found.low <= truth) & (truth <= found.high))
    assert 0.93 < np.mean(hits) < 0.97


def test_the_benchmark_reached_its_bar():
    file = ROOT / "benchmarks" / "results" / "elo_coverage.json"
    settings = json.loads(file.read_text(encoding="utf-8"))["settings"]
    assert len(settings) >= 8
    assert all(0.93 <= found["coverage"] <= 0.97 for found in settings.values())
