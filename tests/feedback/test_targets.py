"""What training learns from labels: as they are, hard, of other pairs, or not at all."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.feedback.targets import with_targets


@dataclass(frozen=True)
class Labelled:
    probability: float


ROWS = [Labelled(p) for p in np.random.default_rng(0).uniform(size=400)]


def targets(rows, kind, seed=0):
    found = with_targets(rows, kind, seed)
    assert [row for row, _ in found] == list(rows)
    return np.array([target for _, target in found])


@pytest.mark.parametrize(("probability", "target"), [(0.9, 1.0), (0.2, 0.0), (0.5, 0.5)])
def test_soft_and_hard(probability, target):
    assert targets([Labelled(probability)], "soft") == probability
    assert targets([Labelled(probability)], "hard") == target


def test_shuffled_labels_say_nothing_of_their_pairs():
    own = np.array([row.probability for row in ROWS])
    shuffled = [targets(ROWS, "shuffled", seed) for seed in (0, 0, 1)]
    assert (shuffled[0] == shuffled[1]).all()
    assert (shuffled[0] != shuffled[2]).any()
    for labels in shuffled:
        assert abs(np.corrcoef(own, labels)[0, 1]) < 0.15  # 3 standard errors
        assert np.mean((own > 0.5) == (labels > 0.5)) == pytest.approx(0.5, abs=0.08)


@given(st.lists(st.floats(0, 1)), st.integers(0, 99))
def test_shuffling_keeps_the_distribution(labels, seed):
    rows = [Labelled(p) for p in labels]
    assert Counter(targets(rows, "shuffled", seed).tolist()) == Counter(labels)


def test_none_leaves_no_comparison():
    assert with_targets(ROWS, "none", 0) == []
