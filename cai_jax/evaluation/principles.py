"""Which principles shaped the result: what they drew, changed, decided, and what they are owed."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from cai_jax.data.rows import Comparison, Revision
from cai_jax.evaluation.attribution import (
    HEAD_PAIRS,
    PEOPLE,
    contrasts,
    fit_head,
    read_labels,
)
from cai_jax.evaluation.evaluator import Evaluator, Evidence
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement, Plan
from cai_jax.feedback.labeler import judgement_of

DRAWN = Measure("drawn", "share", "", "for which the principle was drawn")
WORDS_CHANGED = Measure(
    "words_changed", "share", "", "words of both replies that a revision did not keep in order"
)
GAIN = Measure(
    "score_change",
    "standard deviations",
    "higher",
    "score of the revision minus that of the reply before it, by the preference model",
)
STRENGTH = Measure("strength", "", "", "distance of its labels from one half", low=0.0, high=0.5)
AGREEMENT = Measure(
    "agreement", "share", "", "labels of other principles, of the same pairs, on its side of 1/2"
)
DECIDED = Measure(
    "decided", "share", "", "pairs whose label is on the other side of 1/2, or none, without it"
)
LEAD = Measure(
    "lead", "standard deviations", "", "of RL-CAI's replies over base's, by a head of all labels"
)
LEAD_LOST = Measure(
    "lead_lost",
    "standard deviations",
    "",
    "by which that lead is less, by a head that never had its labels",
)
ACCURACY_LOST = Measure(
    "accuracy_lost",
    "share",
    "",
    "held-out harmlessness pairs that such a head ranks right no more, net",
)
FOLLOWS = Measure(
    "follows",
    "share",
    "higher",
    "replies of which head and preference model agree whether they beat base's",
)
OF_LABELS, OF_HEAD = (
    (DRAWN, STRENGTH, AGREEMENT, DECIDED),
    (LEAD, LEAD_LOST, ACCURACY_LOST, FOLLOWS),
)
ALL, RESULT = "all labels", "rl_cai"


def measure_revisions(evidence: Evidence) -> Iterator[Measurement]:
    """How much replies changed in revisions under each principle."""
    steps = {(row.prompt_id, row.round): row for row in evidence.revisions}
    before = [steps[row.prompt_id, row.round - 1] for row in evidence.revisions if row.round]
    after = [row for row in evidence.revisions if row.round]
    if not after:
        return
    gains = scores_of(evidence, after) - scores_of(evidence, before)
    changed = [words_changed(a.response, b.response) for a, b in zip(before, after, strict=True)]
    for principle in evidence.plan.critique_principles:
        under = [row.principle_id == principle for row in after]
        if rows := np.flatnonzero(under).tolist():
            yield evidence.mean(DRAWN, principle, "", under, [row.prompt for row in after])
            prompts = [after[i].prompt for i in rows]
            values = [changed[i] for i in rows]
            yield evidence.mean(WORDS_CHANGED, principle, "", values, prompts)
            yield evidence.mean(GAIN, principle, "", gains[rows], prompts)


def scores_of(evidence: Evidence, rows: Sequence[Revision]) -> np.ndarray:
    """Scores [n] of replies by the preference model."""
    reward = evidence.tools.reward
    ids = reward.chat.prompts_ids([row.prompt for row in rows])
    return reward(ids, [row.response for row in rows], "evaluate: principles")


def words_changed(old: str, new: str) -> float:
    """The share of the words of two texts that is not in their common blocks."""
    return 1 - difflib.SequenceMatcher(None, old.split(), new.split(), autojunk=False).ratio()


def measure_labels(evidence: Evidence) -> Iterator[Measurement]:
    """What the labels of each principle say, decide, and made of the preference model."""
    for group in evidence.plan.groups:
        yield from (replace(m, group=group) for m in _measure_group(evidence, group))


def _measure_group(evidence: Evidence, group: str) -> Iterator[Measurement]:
    """The same of one group's labels and preference model."""
    rows = [row for row in evidence.comparisons[group] if row.purpose == "training"]
    drawn: dict[str, list[tuple[Comparison, int]]] = defaultdict(list)
    for row in rows:
        for at, principle in enumerate(row.principle_ids):
            drawn[principle].append((row, at))
    for principle in evidence.plan.feedback_principles:
        if found := drawn.get(principle):
            under = [principle in row.principle_ids for row in rows]
            yield evidence.mean(DRAWN, principle, "", under, [row.prompt for row in rows])
            yield from _labels_of(evidence, principle, found)
    if rows and evidence.labels == "soft":
        yield from _head_of(evidence, group, rows)


def _labels_of(
    evidence: Evidence, principle: str, found: Sequence[tuple[Comparison, int]]
) -> Iterator[Measurement]:
    """What a principle's labels say, at their places among those of each pair."""
    labels = [(judgement_of(row).by_principle, at, row.prompt) for row, at in found]
    prompts = [prompt for *_, prompt in labels]
    strengths = [abs(given[at] - 0.5) for given, at, _ in labels]
    yield evidence.mean(STRENGTH, principle, "", strengths, prompts)
    same = [
        (float(side(other) == side(given[at])), prompt)
        for given, at, prompt in labels
        for other in np.delete(given, at)
    ]
    if same:
        yield evidence.mean(AGREEMENT, principle, "", *zip(*same, strict=True))
    decided = [
        len(given) == 1 or side(given.mean()) != side(np.delete(given, at).mean())
        for given, at, _ in labels
    ]
    yield evidence.mean(DECIDED, principle, "", decided, prompts)


def side(label: float) -> float:
    """The reply that a label is for: 1 the first, -1 the second, 0 neither."""
    return float(np.sign(round(label - 0.5, 6)))


def _head_of(evidence: Evidence, group: str, rows: Sequence[Comparison]) -> Iterator[Measurement]:
    """What the lead of RL-CAI over base, by a head on frozen features, owes to whose labels."""
    reward, base = evidence.tools.reward.rewards[group], evidence.plan.policies[0]
    at = evidence.plan.groups.index(group)
    head = fit_head(read_labels(reward.scorer, rows, evidence.helpfulness))
    replies = [
        (one.row, other.row)
        for one, other in zip(evidence.replies[RESULT], evidence.replies[base], strict=True)
        if one.usable and other.usable and one.row.set in PROMPT_SETS
    ]
    if replies:
        lead_md = contrasts(reward, [(a.prompt, a.response, b.response) for a, b in replies])
        prompts = [one.prompt for one, _ in replies]
        scored = [a.group_scores[at] - b.group_scores[at] for a, b in replies]
        lead = lead_md @ head.kernel_d
        yield evidence.mean(LEAD, ALL, "", lead, prompts)
        yield evidence.mean(FOLLOWS, ALL, "", np.sign(lead) == np.sign(scored), prompts)
        for source in head.sources:
            yield evidence.mean(LEAD_LOST, source, "", head.lost(source, lead_md), prompts)
    if pairs := evidence.pairs["harmlessness"]:
        right_md = contrasts(reward, [(p.messages, p.chosen, p.rejected) for p in pairs])
        asked = [pair.messages for pair in pairs]
        ranked = lambda kernel_d: (np.sign(right_md @ kernel_d) + 1) / 2
        for source, kernel_d in head.kernels_without.items():
            lost = ranked(head.kernel_d) - ranked(kernel_d)
            yield evidence.difference(ACCURACY_LOST, source, "", lost, asked)


def measures_of_labels(plan: Plan) -> tuple[Measure, ...]:
    """All of them group by group."""
    found = (*OF_LABELS, *OF_HEAD) if plan.feedback_principles else ()
    return tuple(replace(measure, groups=plan.groups) for measure in found)


REVISION_PRINCIPLES = Evaluator(
    "Principles of critique and revision",
    lambda plan: plan.critique_principles,
    lambda plan: (DRAWN, WORDS_CHANGED, GAIN) if plan.critique_principles else (),
    measure_revisions,
    cases="revisions that were kept, of all principles or of one; those of one prompt count as one "
    "unit",
    given="the base model, its critic and the preference model of this run",
)
FEEDBACK_PRINCIPLES = Evaluator(
    "Principles of feedback",
    lambda plan: (ALL, *plan.feedback_principles, PEOPLE),
    measures_of_labels,
    measure_labels,
    cases="pairs of training, all or those of a principle, held-out replies of RL-CAI, or held-out "
    "pairs; those of one prompt count as one unit",
    given="the hidden states of this run's preference model, which all principles shaped; on them "
    f"a linear head is solved with all labels, those of {HEAD_PAIRS:,} pairs of a kind at most, "
    "and again without those of a principle. Principles that agree stand in for each other: little "
    "may be lost without one of them. Intervals are over prompts: a principle with few pairs may "
    "do otherwise in another draw",
)
