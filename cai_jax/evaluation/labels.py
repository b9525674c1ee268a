"""Can the labels be trusted? The labeler against labelled pairs, and against the oracle's order."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from cai_jax.data.rows import Comparison
from cai_jax.evaluation.evaluator import Evaluator, Evidence, Oracle
from cai_jax.evaluation.measure import Measure, Measurement, Plan, joined
from cai_jax.feedback.audit import Audit, audit, wilson_interval
from cai_jax.feedback.baselines import baselines
from cai_jax.feedback.labeler import ResponsePair, judgement_of

ACCURACY = Measure("accuracy", "share", "higher", "pairs labelled right")
CALIBRATION = Measure(
    "calibration_error", "", "lower", "expected calibration error, 10 bins", low=0.0, high=1.0
)
SURFACE = (
    Measure("bag_of_words", "share", "", "pairs that a classifier of single words ranks right"),
    Measure("length", "share", "", "that one of lengths alone does; both are cross-validated"),
)
SHARES = tuple(measure.name for measure in (ACCURACY, *SURFACE))  # they have an interval
ORDER = (
    Measure("picks_option_a", "share", "", "judgements for option (A); half is unbiased"),
    Measure("swap_consistency", "share", "higher", "judgements that are the same in both orders"),
)


HALVES = ("audit", "development")


def subjects(plan: Plan) -> tuple[str, ...]:
    """Halves of the labelled pairs; where the oracle orders replies, what the labeler labelled."""
    ordered = any(measure.name == "merit" for measure in plan.oracle)
    return (*HALVES, *(("pairs", "principles") if ordered else ()))


def measures(plan: Plan) -> tuple[Measure, ...]:
    """Those of order only where the labeler sees both responses at once; all group by group."""
    order = () if plan.labeler == "contrast" else ORDER
    return tuple(replace(m, groups=plan.groups) for m in (ACCURACY, *SURFACE, CALIBRATION, *order))


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """The audit that the labeler had before it was used, and one by the oracle."""
    for group in evidence.plan.groups:
        keys = {half: joined(half, group) for half in HALVES}
        audits = {
            half: evidence.audits[key] for half, key in keys.items() if key in evidence.audits
        }
        if evidence.oracle:
            audits |= audits_by_oracle(evidence.oracle, evidence.comparisons[group])
        for subject, found in audits.items():
            for measure in measures(evidence.plan):
                value, units = getattr(found, measure.name), found.openings
                m = Measurement(measure.name, subject, group, found.pairs, value)
                if measure.name in SHARES:
                    low, high = wilson_interval(value * units, units)
                    m = replace(m, low=low, high=high, units=units)
                yield m


def audits_by_oracle(oracle: Oracle, comparisons: list[Comparison]) -> dict[str, Audit]:
    """Labels against the oracle's ``merit``, over pairs whose merits differ; empty without any.

    Of whole pairs, and of the single principles that a pair was judged under; the pairs' surface
    is the same.
    """
    pairs, judged, singles, truths = [], [], [], []
    for row in comparisons:
        first = oracle(row.prompt, row.response_first).get("merit")
        second = oracle(row.prompt, row.response_second).get("merit")
        if first is None or second is None or first == second:
            continue
        truths.append(first > second)
        pairs.append(ResponsePair(row.id, row.prompt, row.response_first, row.response_second, ()))
        judged.append(judgement_of(row))
        singles += judged[-1].singles
    if not pairs:
        return {}
    surface = baselines(pairs, truths)
    repeated = np.repeat(truths, len(singles) // len(pairs)).tolist()
    return {
        "pairs": audit(judged, truths, surface),
        "principles": audit(singles, repeated, surface),
    }


LABELS = Evaluator(
    "Can the feedback be trusted?",
    subjects,
    measures,
    evaluate,
    cases="pairs (single principles: judgements); those whose prompts open alike count as one unit",
    given="the feedback model and the principles that were drawn for each pair",
)
