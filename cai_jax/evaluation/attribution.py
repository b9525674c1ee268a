"""Which labels made a preference model's scores what they are, by a linear head that is solved.

The head stands in for the preference model. It reads the same last hidden states, as they are
after training, and is fitted to the same labels (Bradley and Terry 1952) with a ridge penalty, up
to the optimum. What it would be without the labels of one principle, which would take a training
run of the whole model, is then solved for, and exact for this head. What a principle did
to the hidden states themselves stays in them: its whole effect may be larger. And principles that
agree stand in for each other: without one of them little may change.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold
from threadpoolctl import threadpool_limits

from cai_jax.data.rows import Comparison, TrainingPair
from cai_jax.feedback.labeler import judgement_of
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import sampled
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import Reward

PEOPLE = "labelled helpfulness pairs"  # the source of labels that no principle gave
Pair = TypeVar("Pair", Comparison, TrainingPair)
FOLDS = 5
HEAD_PAIRS = 2000  # that a head is fitted to, of principles and of people each, at most
# Inverse ridge penalties that are tried, per mean square of a difference of features.
STRENGTHS = np.geomspace(1e-2, 1e3, 6)


@dataclass(frozen=True)
class Labels:
    """What a head is fitted to: n labels of pairs; one of a pair for each of its principles.

    Attributes:
      differences_nd: features of the first reply minus those of the second, float64.
      targets_n: P(first is better).
      weights_n: in the loss; all labels of a pair together have the pair's.
      sources_n: ids of principles, or ``PEOPLE``.
      pairs_n: ids of the pairs.
      groups_n: numbers of the prompts, which cross-validation keeps together.
    """

    differences_nd: np.ndarray
    targets_n: np.ndarray
    weights_n: np.ndarray
    sources_n: np.ndarray
    pairs_n: np.ndarray
    groups_n: np.ndarray

    def kept(self, kept_n: np.ndarray) -> "Labels":
        """Some of the labels, by mask or numbers."""
        return Labels(*(value[kept_n] for value in vars(self).values()))

    def without(self, source: str) -> "Labels":
        """The labels of the other sources; they have the whole weight of a pair that they share."""
        pair_n = np.unique(self.pairs_n, return_inverse=True)[1]
        other_n = self.sources_n != source
        whole_p = np.bincount(pair_n, self.weights_n)
        left_p = np.bincount(pair_n, self.weights_n * other_n)
        grown = self.weights_n[other_n] * (whole_p / np.maximum(left_p, 1e-12))[pair_n[other_n]]
        return replace(self.kept(other_n), weights_n=grown)


@dataclass(frozen=True)
class Head:
    """A head at its optimum, and what it was fitted to.

    Attributes:
      labels: of its training.
      strength: inverse of its ridge penalty.
      scale: standard deviation of its raw scores of the labelled replies, the unit of its scores.
    """

    labels: Labels
    strength: float
    scale: float

    @cached_property
    def kernel_d(self) -> np.ndarray:
        """Its weights, in units of its scale."""
        return fit_kernel(self.labels, self.strength) / self.scale

    @property
    def sources(self) -> list[str]:
        """Of its labels, each once."""
        return np.unique(self.labels.sources_n).tolist()

    @cached_property
    def kernels_without(self) -> dict[str, np.ndarray]:
        """By source, the weights as they would be without its labels; their unit stays."""
        labels = ((source, self.labels.without(source)) for source in self.sources)
        return {source: fit_kernel(left, self.strength) / self.scale for source, left in labels}

    def lost(self, source: str, differences: np.ndarray) -> np.ndarray:
        """By how much differences of scores would be less without the labels of a source.

        Args:
          source: of the labels.
          differences: of features, float [..., d].
        """
        return differences @ (self.kernel_d - self.kernels_without[source])

    def influences(self, difference_d: np.ndarray) -> dict[str, float]:
        """By how much a difference of scores would be less without each pair, by id of the pair.

        One Newton step from the optimum (Cook and Weisberg 1982; Koh and Liang 2017 for networks),
        so that it costs no fit a pair; the labels of a pair are left out together.
        """
        found, kernel_d = self.labels, self.kernel_d * self.scale
        expected_n = expit(found.differences_nd @ kernel_d)
        curvature_n = found.weights_n * expected_n * (1 - expected_n)
        hessian_dd = (found.differences_nd.T * curvature_n) @ found.differences_nd
        hessian_dd += np.eye(len(kernel_d)) / self.strength
        towards_d = np.linalg.solve(hessian_dd, difference_d)
        pull_n = found.weights_n * (found.targets_n - expected_n) / self.scale
        pairs, pair_n = np.unique(found.pairs_n, return_inverse=True)
        moved = np.bincount(pair_n, pull_n * (found.differences_nd @ towards_d))
        return dict(zip(pairs.tolist(), moved.tolist(), strict=True))


def fit_head(labels: Labels) -> Head:
    """The head whose penalty, of those tried, predicts the labels of held-out prompts best."""
    square = float(np.mean(np.sum(labels.differences_nd**2, axis=1))) or 1.0
    strengths = (STRENGTHS / square).tolist()
    folds = min(FOLDS, len(np.unique(labels.groups_n)))
    if folds > 1:
        split = list(GroupKFold(folds).split(labels.targets_n, groups=labels.groups_n))
        strength = min(strengths, key=lambda s: _held_out_loss(labels, s, split))
    else:
        strength = strengths[0]
    raw_n = labels.differences_nd @ fit_kernel(labels, strength)
    # A difference of two independent scores has twice the variance of one.
    return Head(labels, strength, float(np.sqrt(np.mean(raw_n**2) / 2)) or 1.0)


def fit_kernel(labels: Labels, strength: float) -> np.ndarray:
    """The weights [d] that minimise ``strength`` times the cross-entropy, plus half their square.

    A soft label is two hard ones, whose weights are its probabilities.
    """
    d, t, w = labels.differences_nd, labels.targets_n, labels.weights_n
    if not len(d):
        return np.zeros(d.shape[1])
    solver = LogisticRegression(
        C=strength, fit_intercept=False, solver="newton-cholesky", tol=1e-9, max_iter=200
    )
    answers = np.repeat([1, 0], len(d))
    weights = np.concatenate([w * t, w * (1 - t)])
    with threadpool_limits(1):  # so few numbers are slower on many threads
        return solver.fit(np.concatenate([d, d]), answers, weights).coef_[0]


def _held_out_loss(
    labels: Labels, strength: float, split: Iterable[tuple[np.ndarray, np.ndarray]]
) -> float:
    loss = 0.0
    for shown, hidden in split:
        kernel, held = fit_kernel(labels.kept(shown), strength), labels.kept(hidden)
        margin = held.differences_nd @ kernel
        # -t log s(m) - (1 - t) log s(-m), s the logistic function
        loss += float(np.sum(held.weights_n * (np.logaddexp(0, margin) - held.targets_n * margin)))
    return loss


def comparison_id(row: Comparison) -> str:
    """Of a comparison among all pairs: people's may have the same ids."""
    return f"ai/{row.id}"


def read_labels(
    scorer: Scorer, comparisons: Sequence[Comparison], helpfulness: Sequence[TrainingPair]
) -> Labels:
    """The labels that a preference model learned from, with its features of the replies.

    Of more than ``HEAD_PAIRS`` those are read that are drawn by their ids.

    Args:
      scorer: of the preference model.
      comparisons: that it was trained on, at least one.
      helpfulness: pairs that people labelled, likewise.
    """
    comparisons, helpfulness = _some(comparisons), _some(helpfulness)
    pairs: list[Comparison | TrainingPair] = [*comparisons, *helpfulness]
    sides = [ids for pair in pairs for ids in (pair.first, pair.second)]
    features = scorer.preference_features(sides, "features").astype(np.float64)
    differences = features[0::2] - features[1::2]
    rows: list[tuple[int, float, float, str, str, Hashable]] = []
    for at, row in enumerate(comparisons):
        given = judgement_of(row).by_principle
        rows += [
            (at, label, 1 / len(given), principle, comparison_id(row), row.prompt)
            for principle, label in zip(row.principle_ids, given, strict=True)
        ]
    for at, pair in enumerate(helpfulness, len(comparisons)):
        target, weight = pair.target_ppm[0] / 1e6, pair.weight_ppm[0] / 1e6
        rows.append((at, target, weight, PEOPLE, f"people/{pair.id}", _shared(pair)))
    which, targets, weights, sources, ids, prompts = zip(*rows, strict=True)
    numbers: dict[Hashable, int] = {}
    groups = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
    return Labels(
        differences[list(which)], *map(np.array, (targets, weights, sources, ids, groups))
    )


def _some(pairs: Sequence[Pair]) -> list[Pair]:
    """At most ``HEAD_PAIRS``."""
    return [pairs[i] for i in sampled([pair.id for pair in pairs], HEAD_PAIRS, 0, "head")]


def contrasts(reward: Reward, replies: Sequence[tuple[Dialogue, str, str]]) -> np.ndarray:
    """Features [m, d] of one reply to a prompt minus those of another, float64."""
    chat = reward.chat
    rows = [
        chat.judged_ids(chat.prompt_ids(prompt), reply)
        for prompt, *both in replies
        for reply in both
    ]
    features = reward.scorer.preference_features(rows, "features").astype(np.float64)
    return features[0::2] - features[1::2]


def _shared(pair: TrainingPair) -> tuple[int, ...]:
    """The ids that both sides begin with, their prompt among them."""
    same = [a == b for a, b in zip(pair.first, pair.second, strict=False)]
    return pair.first[: same.index(False) if False in same else len(same)]
