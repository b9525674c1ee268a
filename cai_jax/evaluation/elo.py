"""Elo ratings: Bradley-Terry with ties (Davidson 1970), regularised, with 95 % intervals.

P(i wins), P(tie) and P(j wins) are as exp(d/2), exp(t) and exp(-d/2), where d is how much stronger
i is than j, in nats, and t is one number for all pairs. A rating is a strength in units of Elo, 400
for odds of ten to one, over the mean of all players.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import stats

SCALE = 400 / math.log(10)
WIN, TIE, LOSS = range(3)


@dataclass(frozen=True)
class Games:
    """Results of games; arrays of one length.

    Attributes:
      first: players, by number; they need not be in order.
      second: their opponents.
      outcome: 1 where the first won, 0.5 for a tie, 0 where the second won.
      unit: what games depend on each other by, such as the prompt; None: all are independent.
    """

    first: np.ndarray
    second: np.ndarray
    outcome: np.ndarray
    unit: np.ndarray | None = None


@dataclass(frozen=True)
class Ratings:
    """In units of Elo, 0 being the mean of the players, or contrasts of them; float [n]."""

    elo: np.ndarray
    low: np.ndarray
    high: np.ndarray


def rate(games: Games, players: int, contrasts: np.ndarray | None = None) -> Ratings:
    """Ratings with Wald intervals, wider where games of a unit depend on each other.

    The intervals cover better than a bootstrap's, which sees no spread where a player never loses;
    see benchmarks/elo_coverage.py.

    Args:
      games: at least one.
      players: how many there are.
      contrasts: what is wanted of the strengths, such as differences; float [n, players] with rows
        that sum to 0. None: every player's, over the mean of all.

    Raises:
      ValueError: there are no games, an outcome is none of three, or a player plays itself.
    """
    pair, result = coded(games, players)
    design = design_of(players)
    counts = np.zeros(design.shape[:2])
    np.add.at(counts, (pair, result), 1)
    strengths, information = fit(counts, design)
    model = np.linalg.inv(information)
    wanted = to_elo(np.eye(players) - 1 / players if contrasts is None else contrasts)
    half_width = stats.norm.ppf(0.975) * _errors(wanted, model)
    if games.unit is not None and (k := len(np.unique(games.unit))) > 1:
        units = np.unique(games.unit, return_inverse=True)[1]
        residuals = design - np.einsum("po,pok->pk", _shares(strengths, design), design)[:, None]
        scores = np.zeros((k, design.shape[2]))
        np.add.at(scores, units, residuals[pair, result])
        robust = model @ (scores.T @ scores * k / (k - 1)) @ model
        clustered = stats.t.ppf(0.975, k - 1) * _errors(wanted, robust)
        half_width = np.maximum(half_width, clustered)
    elo = wanted @ strengths
    return Ratings(elo, elo - half_width, elo + half_width)


def fit(counts: np.ndarray, design: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Strengths over the first player and t, by Newton's method, and their information.

    Pseudo-counts keep a rating finite where a player never loses: as many as Jeffreys's prior has
    of two players, 1.5 games with every outcome alike, and in all 0.75 for each parameter.

    Args:
      counts: games by pair and outcome; float [..., pairs, 3].
      design: of ``design_of``; float [pairs, 3, parameters].

    Returns:
      Float [..., parameters] and [..., parameters, parameters].
    """
    pairs, _, parameters = design.shape
    counts = counts + 0.25 * parameters / pairs
    games = counts.sum(axis=-1)
    found = np.zeros((*counts.shape[:-2], parameters))
    for _ in range(100):  # far more than it takes: it is concave
        shares = _shares(found, design)
        mean = np.einsum("...po,pok->...pk", shares, design)
        gradient = np.einsum("...po,pok->...k", counts - games[..., None] * shares, design)
        second = np.einsum("...po,pok,pol->...kl", games[..., None] * shares, design, design)
        information = second - np.einsum("...p,...pk,...pl->...kl", games, mean, mean)
        step = np.linalg.solve(information, gradient[..., None])[..., 0]
        longest = np.abs(step).max(axis=-1, keepdims=True)
        found += step * np.minimum(1, 2 / np.maximum(longest, 1e-12))
        if longest.max() < 1e-9:
            break
    return found, information


def design_of(players: int) -> np.ndarray:
    """What of each parameter is in the logit of each outcome of each pair."""
    pairs = list(combinations(range(players), 2))
    design = np.zeros((len(pairs), 3, players + 1))
    for p, (i, j) in enumerate(pairs):
        design[p, WIN, [i, j]] = 0.5, -0.5
        design[p, LOSS] = -design[p, WIN]
        design[p, TIE, players] = 1
    return design[:, :, 1:]  # the first player's strength is 0


def to_elo(contrasts: np.ndarray) -> np.ndarray:
    """Takes fitted parameters to contrasts of strengths, in Elo; float [n, parameters]."""
    return SCALE * np.append(contrasts[:, 1:], np.zeros((len(contrasts), 1)), axis=1)


def _shares(parameters: np.ndarray, design: np.ndarray) -> np.ndarray:
    """Probabilities of the outcomes; float [..., pairs, 3]."""
    logits = np.einsum("pok,...k->...po", design, parameters)
    odds = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return odds / odds.sum(axis=-1, keepdims=True)


def _errors(contrasts: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """Standard errors of contrasts; rounding can leave a variance of 0 below it."""
    return np.sqrt(np.maximum(np.einsum("pk,kl,pl->p", contrasts, covariance, contrasts), 0))


def coded(games: Games, players: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs and outcomes by number, the lower player of a pair first."""
    first, second, outcome = map(np.asarray, (games.first, games.second, games.outcome))
    if not len(outcome):
        raise ValueError("elo: there are no games; give at least one")
    if not np.isin(outcome, (0, 0.5, 1)).all():
        odd = outcome[~np.isin(outcome, (0, 0.5, 1))][0]
        raise ValueError(f"elo: an outcome of {odd}; give 1 for a win, 0.5 for a tie, 0 for a loss")
    if (first == second).any():
        raise ValueError("elo: a player plays itself; leave such games out")
    low, high = np.minimum(first, second), np.maximum(first, second)
    number = np.zeros((players, players), int)
    number[np.triu_indices(players, 1)] = range(players * (players - 1) // 2)
    result = np.where(outcome == 0.5, TIE, np.where((outcome == 1) == (first < second), WIN, LOSS))
    return number[low, high], result


def tournament(
    strengths: Sequence[float], tie: float, games: np.ndarray, rng: np.random.Generator
) -> Games:
    """Games between players of known strengths, for simulations.

    Args:
      strengths: in nats.
      tie: the logarithm of how much likelier than either win a tie between equals is.
      games: of each pair, in the order of itertools.combinations; int [pairs].
      rng: draws the outcomes.
    """
    truth = np.append(np.asarray(strengths)[1:] - strengths[0], tie)
    pairs = np.array(list(combinations(range(len(strengths)), 2)))
    which = np.repeat(np.arange(len(pairs)), games)
    shares = _shares(truth, design_of(len(strengths)))[which]
    outcome = (rng.random(len(which))[:, None] > np.cumsum(shares, axis=1)[:, :2]).sum(axis=1)
    return Games(pairs[which, 0], pairs[which, 1], 1 - outcome / 2)
