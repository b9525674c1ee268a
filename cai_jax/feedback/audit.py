"""Is a feedback model worth listening to? Measured on labelled pairs before its labels are used."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from cai_jax.feedback.baselines import Baselines
from cai_jax.feedback.labeler import Judgement

BINS = 10  # of labels, for their calibration


@dataclass(frozen=True)
class Audit:
    """How a labeler does on pairs of which the better response is known."""

    pairs: int
    openings: int  # distinct first turns: the units of the intervals, for pairs of one are alike
    accuracy: float  # a probability of exactly one half counts as half right
    accuracy_low: float  # 95 % Wilson interval
    accuracy_high: float
    picks_option_a: float  # 0.5 is unbiased
    swap_consistency: float  # share of judgements that pick the same response in both orders
    calibration_error: float  # expected calibration error of the averaged label, 10 bins
    bag_of_words: float  # accuracy of the baselines on the same pairs, cross-validated
    length: float

    @property
    def better_than_chance(self) -> bool:
        """Whether the interval lies above one half."""
        return self.accuracy_low > 0.5

    @property
    def better_baselines(self) -> list[str]:
        """Names of the baselines that are right more often."""
        return [n for n in ("bag_of_words", "length") if getattr(self, n) > self.accuracy]


def audit(
    judgements: Sequence[Judgement], first_is_better: Sequence[bool], surface: Baselines
) -> Audit:
    """Compares judgements with labels, and with what ``surface`` gives away of the same pairs.

    Raises:
      ValueError: there is nothing to audit on.
    """
    if not judgements:
        raise ValueError("audit: there are no labelled pairs")
    truth = np.asarray(first_is_better, bool)
    label = np.array([j.probability for j in judgements])
    correct = np.where(label == 0.5, 0.5, (label > 0.5) == truth)
    accuracy, units = float(correct.mean()), surface.openings
    low, high = wilson_interval(accuracy * units, units)
    shown_first = np.concatenate([j.shown_first for j in judgements])
    shown_second = np.concatenate([j.shown_second for j in judgements])
    return Audit(
        pairs=len(judgements),
        accuracy=accuracy,
        accuracy_low=low,
        accuracy_high=high,
        picks_option_a=float(np.mean(np.concatenate([shown_first, 1 - shown_second]) > 0.5)),
        swap_consistency=float(np.mean((shown_first > 0.5) == (shown_second > 0.5))),
        calibration_error=calibration_error(label, truth),
        **asdict(surface),
    )


def wilson_interval(successes: float, trials: float) -> tuple[float, float]:
    """95 % interval of a proportion (Wilson 1927); the proportion is within, however it rounds."""
    p, z = successes / trials, 1.959964
    centre = p + z * z / (2 * trials)
    spread = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials))
    scale = 1 + z * z / trials
    return max(min((centre - spread) / scale, p), 0.0), min(max((centre + spread) / scale, p), 1.0)


@dataclass(frozen=True)
class Bin:
    """Pairs whose labels are about the same: of calibrated ones, ``share`` is ``label``."""

    label: float  # mean P(first is better)
    share: float  # of them, those of which the first is better
    share_low: float  # 95 % Wilson interval, by distinct first turns
    share_high: float
    pairs: int


def reliability(probability: np.ndarray, outcome: np.ndarray, openings: Sequence[str]) -> list[Bin]:
    """Labels beside what is so, in equally wide bins; those without a pair are left out.

    Args:
      probability: float [pairs], the labels.
      outcome: bool [pairs], whether the first is better.
      openings: of the pairs, [pairs].
    """
    found = []
    for here in _in_bins(probability):
        share, units = float(np.mean(outcome[here])), len({openings[i] for i in here})
        interval = wilson_interval(share * units, units)
        found.append(Bin(float(np.mean(probability[here])), share, *interval, len(here)))
    return found


def calibration_error(probability: np.ndarray, outcome: np.ndarray) -> float:
    """Expected calibration error (Naeini et al. 2015) over equally wide bins."""
    gaps = [
        len(here) * abs(probability[here].mean() - outcome[here].mean())
        for here in _in_bins(probability)
    ]
    return float(np.sum(gaps) / len(probability))


def _in_bins(probability: np.ndarray) -> list[np.ndarray]:
    """Places of the labels in each bin that has any."""
    which = np.minimum((probability * BINS).astype(int), BINS - 1)
    return [np.flatnonzero(which == b) for b in np.unique(which)]
