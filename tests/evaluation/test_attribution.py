"""A head that is solved: what it is without some of its labels, to the number."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.special import expit
from small_evidence import HARM, HELP

from cai_jax.data.rows import Comparison, TrainingPair
from cai_jax.evaluation import attribution
from cai_jax.evaluation.attribution import PEOPLE, Head, Labels, fit_head, fit_kernel, read_labels

LIKED = {"first": 0, "second": 1}  # the feature that each principle likes; "none" likes nothing


def some_labels(pairs=120, d=6, seed=0):
    """Pairs of three prompts a time, each labelled under two of three principles."""
    rng, rows = np.random.default_rng(seed), []
    differences = rng.normal(size=(pairs, d))
    for pair in range(pairs):
        for name in rng.choice(["first", "second", "none"], 2, replace=False):
            logit = 2 * differences[pair, LIKED[name]] if name in LIKED else 0.0
            rows.append((pair, expit(logit + rng.normal(0, 0.3)), 0.5, name))
    which, targets, weights, names = zip(*rows, strict=True)
    ids = np.array([f"p{pair}" for pair in which])
    return Labels(
        differences[list(which)],
        *map(np.array, (targets, weights, names)),
        ids,
        np.array(which) // 3,
    )


def test_the_kernel_is_an_optimum():
    labels, strength = some_labels(), 0.3
    kernel = fit_kernel(labels, strength)
    residual = labels.weights_n * (labels.targets_n - expit(labels.differences_nd @ kernel))
    np.testing.assert_allclose(kernel, strength * residual @ labels.differences_nd, atol=1e-6)
    assert not fit_kernel(labels.kept(np.zeros(0, int)), strength).any()


def test_pairs_keep_their_weight_without_a_principle():
    """Those that nobody else labelled are gone."""
    labels = some_labels()
    alone = labels.kept(labels.sources_n == "none")
    assert not len(alone.without("none").targets_n)
    left = labels.without("none")
    assert set(left.sources_n) == {"first", "second"}
    for pair in set(labels.pairs_n):
        assert left.weights_n[left.pairs_n == pair].sum() == pytest.approx(1.0)


def test_what_a_principle_likes_is_lost_without_its_labels():
    head = fit_head(some_labels())
    lost = {name: head.lost(name, np.eye(6)) for name in head.sources}
    assert max(lost, key=lambda name: lost[name][0]) == "first"
    assert max(lost, key=lambda name: lost[name][1]) == "second"
    assert abs(lost["first"][0]) > 5 * abs(lost["first"][3])
    spread = np.std(head.labels.differences_nd @ head.kernel_d)
    assert spread == pytest.approx(np.sqrt(2), rel=0.1)  # a reply's score has deviation 1


def test_influences_are_what_leaving_a_pair_out_changes():
    labels = some_labels(pairs=40)
    head, asked = Head(labels, 0.5, 1.7), np.arange(6) / 6
    found = head.influences(asked)
    for pair in list(found)[:8]:
        without = replace(head, labels=labels.kept(labels.pairs_n != pair))
        change = asked @ (head.kernel_d - without.kernel_d)
        assert found[pair] == pytest.approx(change, rel=0.3, abs=0.002)
    assert len(found) == 40


class Features:
    """Of the head of a preference model: the last two ids."""

    def preference_features(self, rows, name):
        return np.array([row[-2:] for row in rows], np.float32)


def comparison(name, prompt, labels, bounds=(0.0, 1.0)):
    return Comparison(
        id=name,
        purpose="training",
        prompt=prompt,
        response_first="",
        response_second="",
        first=(1, 2, 3),
        second=(1, 1, 1),
        probability=0.0,
        principle_ids=tuple(labels),
        shown_first=tuple(label + 0.1 for label in labels.values()),
        shown_second=tuple(label - 0.1 for label in labels.values()),
        method="",
        seed=0,
        model="",
        feedback_model="",
        constitution_sha256="",
        bounds=bounds,
    )


def test_of_many_pairs_some_are_read(monkeypatch):
    monkeypatch.setattr(attribution, "HEAD_PAIRS", 3)
    rows = [comparison(str(n), HARM, {"a": 0.8}) for n in range(20)]
    people = [TrainingPair(str(n), (7, 5), (7, 4), (10**6,), (10**6,)) for n in range(2)]
    found = read_labels(Features(), rows, people)
    assert (found.sources_n == "a").sum() == 3
    again = read_labels(Features(), rows[::-1], people)  # drawn by id
    assert set(again.pairs_n) == set(found.pairs_n)


def test_labels_are_read_by_principle():
    comparisons = [
        comparison("x", HARM, {"a": 0.8, "b": 0.3}),
        comparison("y", HARM, {"b": 0.9}, bounds=(0.4, 0.6)),
        comparison("z", HELP, {"a": 0.5}),
    ]
    people = [TrainingPair("x", (7, 5, 5), (7, 4, 5), (1_000_000,), (250_000,))]
    found = read_labels(Features(), comparisons, people)
    assert found.sources_n.tolist() == ["a", "b", "b", "a", PEOPLE]
    np.testing.assert_allclose(found.targets_n, [0.8, 0.3, 0.6, 0.5, 1.0])
    assert found.weights_n.tolist() == [0.5, 0.5, 1, 1, 0.25]
    assert found.differences_nd.tolist() == [[1, 2]] * 4 + [[1, 0]]
    assert len(set(found.pairs_n)) == 4  # people's pair x is not that of feedback
    assert found.groups_n.tolist() == [0, 0, 0, 1, 2]
