"""What an edit of a constitution changed, from two finished runs: labels, scores, replies, costs.

Everything is paired: the same pairs under both constitutions, the same replies by both preference
models, replies to the same prompts with the same random keys. Replies to one prompt are one unit.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cai_jax.constitution.schema import Constitution, load_constitution
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Sample
from cai_jax.evaluation.evaluator import numbered
from cai_jax.evaluation.measure import PROMPT_SETS, Measure
from cai_jax.evaluation.oracle import oracle_measures, values_by_measure
from cai_jax.evaluation.preference import SCORE, SECOND_SCORE
from cai_jax.evaluation.reply_class import ENGAGES, class_by_rule
from cai_jax.evaluation.statistics import (
    Estimate,
    bootstrap_mean,
    by_cluster,
    least_half_width,
)
from cai_jax.stages.engines import load_function, make_reward
from cai_jax.stages.evaluate import STAGE as EVALUATE
from cai_jax.stages.models import POLICIES
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.stage import Run, open_run
from cai_jax.stages.workdir import CONFIG, Workdir, read_config
from cai_jax.storage.files import resolved

BOOTSTRAP_SAMPLES = 2000  # of each interval
ROUNDING = 1e-4  # by which a label that is computed again may differ
CHANGED = Measure(
    "changed", "share", "", "replies that are not the same, word for word", PROMPT_SETS
)
REFUSED = Measure("refused", "share", "", "replies that refuse, by a rule on words", PROMPT_SETS)
JUDGES = {"old": "by the second model of the old run", "new": "by that of the new run"}


@dataclass(frozen=True)
class Change:
    """A measure of the same cases in the old run and in the new one.

    Attributes:
      subject: the policy that it is of; empty for labels.
      group: the set of prompts.
      n: cases.
      units: of them that are independent: prompts.
      difference: new minus old.
    """

    measure: Measure
    subject: str
    group: str
    n: int
    units: int
    old: float
    new: float
    difference: Estimate


@dataclass(frozen=True)
class LabelPair:
    """One comparison under both constitutions."""

    old: Comparison
    new: Comparison

    @property
    def shift(self) -> float:
        """Of P(first is better)."""
        return self.new.probability - self.old.probability


@dataclass(frozen=True)
class Labels:
    """What became of the labels.

    Attributes:
      pairs: that both runs labelled: the same two replies to the same prompt.
      unpaired: comparisons of either run that the other one has not.
    """

    pairs: list[LabelPair]
    unpaired: int

    @property
    def changed(self) -> Estimate:
        """Share of the pairs, at least one, whose label is another."""
        return self._mean([abs(pair.shift) > ROUNDING for pair in self.pairs], 1.0)

    @property
    def flipped(self) -> Estimate:
        """Share of them whose better reply is the other one."""
        sides = [(p.old.probability - 0.5) * (p.new.probability - 0.5) for p in self.pairs]
        return self._mean([side < 0 for side in sides], 1.0)

    @property
    def shift(self) -> Estimate:
        """How far their labels moved, either way."""
        return self._mean([abs(pair.shift) for pair in self.pairs])

    def _mean(self, values: Sequence[float], most: float | None = None) -> Estimate:
        prompts = [pair.old.prompt for pair in self.pairs]
        return _estimate(np.array(values, float), prompts, most).within(0.0, 1.0)


@dataclass(frozen=True)
class Cost:
    """What a stage of the new run took, beside the same of the old run.

    Attributes:
      taken: it is the old run's own, as a whole.
      rows: by kind, how many were taken and computed.
    """

    stage: str
    taken: bool
    rows: Mapping[str, Mapping[str, int]]
    seconds: float
    tokens: int
    old_seconds: float
    old_tokens: int


@dataclass(frozen=True)
class Behaviour:
    """All of it."""

    labels: Labels
    scores: list[Change]  # of replies that are the same in both runs
    replies: list[Change]
    costs: list[Cost]


def finished_run(workdir: Path) -> Run:
    """The run of a workdir, as its config.json says.

    Raises:
      ValueError: there is none, or it has not been evaluated.
    """
    workdir = resolved(workdir)
    file = workdir / CONFIG
    if not file.exists():
        raise ValueError(f"{workdir}: the workdir of no run; name one that holds {CONFIG}")
    config = replace(read_config(file), workdir=str(workdir))
    if Workdir(workdir).fingerprint(EVALUATE.name, hash_all=True) is None:
        raise ValueError(
            f"{workdir}: {EVALUATE.name} has not been run, or is damaged; run it to the end first"
        )
    return open_run(config)


def kept_constitution(run: Run) -> Constitution:
    """The constitution that a finished run was made under: its file may have been edited since."""
    return load_constitution(run.workdir.folder(EVALUATE.name) / "constitution.yaml")


def compare(old: Run, new: Run) -> Behaviour:
    """What changed from one run to the other.

    Raises:
      ValueError: they have no prompt in common.
    """
    pairs = _paired(_samples(old), _samples(new))
    if not pairs:
        raise ValueError(
            f"{old.workdir.path} and {new.workdir.path}: no held-out prompt in common; compare "
            "runs of one config under two constitutions"
        )
    return Behaviour(
        labels=_compared_labels(old, new),
        scores=list(_scores(pairs, bool(old.config.second_model.prompts))),
        replies=list(_replies(pairs, old, new)),
        costs=list(_costs(old, new)),
    )


def compare_labels(old: Sequence[Comparison], new: Sequence[Comparison]) -> Labels:
    """Labels of the same two replies to the same prompt."""
    key = lambda row: (row.purpose, row.id, row.prompt, row.response_first, row.response_second)
    before, after = ({key(row): row for row in rows} for rows in (old, new))
    pairs = [LabelPair(row, after[k]) for k, row in before.items() if k in after]
    return Labels(pairs, len(before) + len(after) - 2 * len(pairs))


def _compared_labels(old: Run, new: Run) -> Labels:
    """Group by group: all groups label the same pairs. A group of one run alone is unpaired."""
    before, after = _comparisons(old), _comparisons(new)
    groups = dict.fromkeys([*before, *after])
    found = [compare_labels(before.get(g, []), after.get(g, [])) for g in groups]
    pairs = [pair for labels in found for pair in labels.pairs]
    return Labels(pairs, sum(labels.unpaired for labels in found))


def _comparisons(run: Run) -> dict[str, list[Comparison]]:
    """By group."""
    folder = run.workdir.folder("feedback") / "comparisons"
    groups = run.inputs(EVALUATE).groups
    return {group: read_records(folder / group, Comparison) for group in groups}


def _samples(run: Run) -> list[Sample]:
    return read_records(run.workdir.folder(EVALUATE.name) / "samples", Sample)


def _paired(old: Sequence[Sample], new: Sequence[Sample]) -> list[tuple[Sample, Sample]]:
    """Replies of the same policy to the same held-out prompt, sampled with the same keys."""
    after = {(row.id, row.prompt): row for row in new}
    return [
        (row, after[row.id, row.prompt])
        for row in old
        if row.set in PROMPT_SETS and row.model in POLICIES and (row.id, row.prompt) in after
    ]


def _scores(pairs: Sequence[tuple[Sample, Sample]], second: bool) -> Iterator[Change]:
    """What both runs' preference models say of replies that are the same in both."""
    same = [(a, b) for a, b in pairs if (a.response, a.finished) == (b.response, b.finished)]
    for measure in (SCORE, SECOND_SCORE) if second else (SCORE,):
        for subject, group, found in _grouped(same):
            values = [[getattr(row, measure.name) for row in pair] for pair in found]
            yield _change(measure, subject, group, found, np.array(values))


def _replies(pairs: Sequence[tuple[Sample, Sample]], old: Run, new: Run) -> Iterator[Change]:
    """What the replies of both runs' policies are, by all that can tell."""
    judged = {name: _second_scores(run, pairs) for name, run in (("old", old), ("new", new))}
    oracle = new.config.evaluate.oracle
    judge = load_function(oracle, "config.evaluate.oracle") if oracle else None
    places = {pair: i for i, pair in enumerate(pairs)}
    for subject, group, found in _grouped(pairs):
        differ = [[0.0, float(a.response != b.response)] for a, b in found]
        yield _change(CHANGED, subject, group, found, np.array(differ))
        refused = [[class_by_rule(row.response) != ENGAGES for row in pair] for pair in found]
        yield _change(REFUSED, subject, group, found, np.array(refused, float))
        for name, scores in judged.items():
            if scores is not None:
                measure = replace(SECOND_SCORE, name=f"score {JUDGES[name]}")
                values = scores[[places[pair] for pair in found]]
                yield _change(measure, subject, group, found, values)
        if judge is None:
            continue
        said = [[(row.prompt, row.response) for row in rows] for rows in zip(*found, strict=True)]
        by_run = [values_by_measure(judge, replies) for replies in said]
        for measure in oracle_measures(judge):
            before, after = (values[measure.name] for values in by_run)
            at = [i for i in before if i in after]
            if at and group in measure.groups:
                values = np.array([[before[i], after[i]] for i in at])
                measure = replace(measure, name=f"{measure.name}, by the oracle")
                yield _change(measure, subject, group, [found[i] for i in at], values)


def _second_scores(run: Run, pairs: Sequence[tuple[Sample, Sample]]) -> np.ndarray | None:
    """Scores [pairs, runs] of all replies by one run's second model; None: it has none.

    It reads their texts, in which a whole word may be other tokens than those that were sampled.
    """
    if not run.config.second_model.prompts:
        return None
    reward, rows = make_reward(run.inputs(EVALUATE), "second_model"), [r for p in pairs for r in p]
    ids = run.models.chat.prompts_ids([row.prompt for row in rows])
    unusable = np.float32(run.config.rl.unusable_score)  # what evaluation gave what does not parse
    replies = [None if np.float32(row.score) == unusable else row.response for row in rows]
    return reward(ids, replies, "second model").reshape(-1, 2)


def _grouped(
    pairs: Sequence[tuple[Sample, Sample]],
) -> Iterator[tuple[str, str, list[tuple[Sample, Sample]]]]:
    """Pairs by policy and set of prompts, where there are any."""
    for policy in POLICIES:
        for group in PROMPT_SETS:
            found = [pair for pair in pairs if (pair[0].model, pair[0].set) == (policy, group)]
            if found:
                yield policy, group, found


def _change(
    measure: Measure,
    subject: str,
    group: str,
    pairs: Sequence[tuple[Sample, Sample]],
    values: np.ndarray,
) -> Change:
    """A change of values [pairs, runs]."""
    prompts, (low, high) = [old.prompt for old, _ in pairs], measure.bounds
    most = None if low is None or high is None else high - low
    difference = _estimate(values[:, 1] - values[:, 0], prompts, most)
    old, new = values.mean(axis=0).tolist()
    n, units = len(pairs), len(set(prompts))
    return Change(measure, subject, group, n, units, old, new, difference)


def _estimate(values: np.ndarray, units: Sequence[Hashable], most: float | None = None) -> Estimate:
    """Mean of values with the bootstrap's interval over units.

    ``most``, where there is one, is what no value is above, nor below its negative: the interval
    is then no narrower than so many units allow, for equal cases are not sure ones.
    """
    found = by_cluster(values, numbered(units))
    e = bootstrap_mean(found, BOOTSTRAP_SAMPLES, seed=0)
    if most is None:
        return e
    return e.at_least(least_half_width(e.mean, most, len(found.sums))).within(-most, most)


def _costs(old: Run, new: Run) -> Iterator[Cost]:
    for stage in stages_of(new.config):
        manifests = [_manifest(run.workdir, stage.name) for run in (old, new)]
        before, after = manifests
        if after:
            yield Cost(
                stage.name,
                before == after,
                after.get("rows", {}),
                *(after["seconds"], after["tokens"]),
                *(before.get("seconds", 0.0), before.get("tokens", 0)),
            )


def _manifest(workdir: Workdir, stage: str) -> dict[str, Any]:
    return workdir.manifest(stage) if workdir.fingerprint(stage) else {}
