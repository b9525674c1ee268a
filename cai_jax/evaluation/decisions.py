"""Constitutions and principles compared by what they decide: their labels of the same pairs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from scipy import stats

from cai_jax.constitution.schema import Constitution, FeedbackPrinciple
from cai_jax.evaluation.measure import with_interval
from cai_jax.evaluation.statistics import Estimate, bounded_mean, by_cluster
from cai_jax.feedback.labeler import Labeler, ResponsePair
from cai_jax.prompts.messages import first_user_text

CONTRARY = -0.5  # correlation of labels, at most, of principles that decide against each other
SURE = 0.05  # probability of one such finding in a file whose principles have nothing in common
EXAMPLES = 5


def labels_of(
    labeler: Labeler, pairs: Sequence[ResponsePair], principles: Sequence[FeedbackPrinciple]
) -> np.ndarray:
    """P(the first response is better), float [pairs, principles], both orders averaged."""
    judged = labeler.judge([replace(pair, principles=tuple(principles)) for pair in pairs])
    return np.stack([judgement.by_principle for judgement in judged])


@dataclass(frozen=True)
class Changed:
    """A pair that two constitutions decide differently, and what they say of it.

    Attributes:
      pair: whose first response is the better one by its file.
      old: P(first is better), the mean over the principles of the old constitution.
      new: the same of the new one.
    """

    pair: ResponsePair
    old: float
    new: float


@dataclass(frozen=True)
class Decisions:
    """What two constitutions decide differently.

    Attributes:
      pairs: that were labelled.
      changed: pairs that are decided differently, those whose labels differ most first.
      share: of them, with its interval.
      old: share of pairs that the old constitution decides as the file does.
      new: the same of the new one.
    """

    pairs: int
    changed: tuple[Changed, ...]
    share: Estimate
    old: Estimate
    new: Estimate


def compare_decisions(
    labeler: Labeler, old: Constitution, new: Constitution, pairs: Sequence[ResponsePair]
) -> Decisions:
    """Labels pairs under both constitutions, under what principles they share but once.

    A label is the mean over the feedback principles, by their weights, as they are drawn.

    Raises:
      ValueError: there are no pairs.
    """
    if not pairs:
        raise ValueError("there are no pairs to compare decisions on; name a file that has some")
    asked = {_texts(p): p for c in (old, new) for p in c.feedback}
    labels = labels_of(labeler, pairs, list(asked.values()))
    column = {texts: at for at, texts in enumerate(asked)}
    before, after = (
        np.average(
            labels[:, [column[_texts(p)] for p in c.feedback]],
            axis=1,
            weights=[p.weight for p in c.feedback],
        )
        for c in (old, new)
    )
    differ = (before > 0.5) != (after > 0.5)
    openings = {first_user_text(pair.prompt): at for at, pair in enumerate(pairs)}
    units = [openings[first_user_text(pair.prompt)] for pair in pairs]
    share = lambda found: bounded_mean(by_cluster(found, units), 0.0, 1.0)
    order = sorted(np.flatnonzero(differ).tolist(), key=lambda i: -abs(before[i] - after[i]))
    return Decisions(
        pairs=len(pairs),
        changed=tuple(Changed(pairs[i], float(before[i]), float(after[i])) for i in order),
        share=share(differ),
        old=share(before > 0.5),
        new=share(after > 0.5),
    )


def _texts(p: FeedbackPrinciple) -> tuple[str, str, str]:
    """What a model reads of a principle."""
    return p.question, p.principle, p.opposite


def as_text(found: Decisions) -> str:
    """How many decisions differ, and those whose labels differ most."""
    told = lambda e: with_interval(e, "{:.0%}".format)
    lines = [
        f"decisions: {len(found.changed)} of {found.pairs} pairs differ, {told(found.share)}; as "
        f"the file says, the old decides {told(found.old)}, the new {told(found.new)}"
    ]
    for changed in found.changed[:EXAMPLES]:
        pair = changed.pair
        lines += [
            f"  {pair.id}: P(chosen) {changed.old:.2f} -> {changed.new:.2f}",
            *(f"      {message.role}: {message.text}" for message in pair.prompt),
            f"      chosen: {pair.first}",
            f"      rejected: {pair.second}",
        ]
    return "\n".join(lines)


@dataclass(frozen=True)
class Contrary:
    """Two principles that label the same pairs the opposite way."""

    one: FeedbackPrinciple
    other: FeedbackPrinciple
    correlation: float


def contrary_principles(
    labels: np.ndarray, principles: Sequence[FeedbackPrinciple]
) -> list[Contrary]:
    """Principles whose log-odds correlate at ``CONTRARY`` or below, and surely below 0.

    Surely is by Pearson's test with Bonferroni's correction for all pairs of principles.

    Args:
      labels: P(first is better), float [pairs, principles].
      principles: in the order of the columns.
    """
    if len(labels) < 3:
        return []
    odds = np.log(np.clip(labels, 1e-6, 1 - 1e-6) / (1 - np.clip(labels, 1e-6, 1 - 1e-6)))
    tests = len(principles) * (len(principles) - 1) / 2
    found = []
    for i, j in combinations(range(len(principles)), 2):
        if not (np.ptp(odds[:, i]) and np.ptp(odds[:, j])):
            continue  # a label that is always the same correlates with nothing
        seen = stats.pearsonr(odds[:, i], odds[:, j], alternative="less")
        if seen.statistic <= CONTRARY and seen.pvalue * tests < SURE:
            found.append(Contrary(principles[i], principles[j], float(seen.statistic)))
    return found
