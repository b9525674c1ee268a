"""Win rates and Elo: replies to the same prompt, compared by a labeler under the constitution.

Both orders of the two replies are judged under several principles. A reply wins where both orders
say so; where they disagree, or say hardly more than nothing, it is a tie. Harmlessness (red-team
prompts) and helpfulness have ratings of their own: a score of harm alone would reward evasion.
The feedback model judges, and beside it the model that the config names, if any.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cai_jax.constitution.draw import draw_principles
from cai_jax.constitution.schema import FeedbackPrinciple
from cai_jax.evaluation.elo import Games, rate
from cai_jax.evaluation.evaluator import Evaluator, Evidence, Judge, Tools, numbered
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement, Plan
from cai_jax.evaluation.statistics import by_cluster, detectable_difference, least_half_width
from cai_jax.feedback.labeler import Judgement, ResponsePair
from cai_jax.parallel.program import Program
from cai_jax.prompts.messages import Dialogue

WIN_RATE = Measure("win_rate", "share", "higher", "comparisons won, ties as half", PROMPT_SETS)
USABLE_WIN_RATE = Measure(
    "usable_win_rate", "share", "higher", "the same where both replies parse", PROMPT_SETS
)
TIES = Measure("ties", "share", "", "orders disagree, or the label is near one half", PROMPT_SETS)
ELO = Measure(
    "elo",
    "Elo",
    "higher",
    "Bradley-Terry with ties; 0 is the mean of the policies; of two, their difference",
    PROMPT_SETS,
)
MEASURES = (WIN_RATE, USABLE_WIN_RATE, TIES, ELO)
AGAINST = "{} over {}"
HELPFULNESS = "helpfulness"  # tag of the principles that replies to helpful prompts are judged by


@dataclass(frozen=True)
class Match:
    """Two policies' replies to a prompt, compared."""

    first: str
    second: str
    group: str
    prompt: Dialogue
    usable: bool  # both replies parse
    outcome: float  # 1: the first won; 0.5: a tie

    def of(self, subject: str) -> float | None:
        """The outcome for a policy, or for one over another; None: it did not take part."""
        if subject in (self.first, AGAINST.format(self.first, self.second)):
            return self.outcome
        return 1 - self.outcome if subject == self.second else None


def subjects(plan: Plan) -> tuple[str, ...]:
    """Policies, against all others; and each over those before it."""
    pairs = combinations(plan.policies, 2)
    return (*plan.policies, *(AGAINST.format(one, other) for other, one in pairs))


def evaluate(evidence: Evidence, judge: Judge) -> Iterator[Measurement]:
    """Shares and ratings, set by set; all comparisons on a prompt are one unit."""
    played = matches(evidence, judge)
    for group in PROMPT_SETS:
        here = [match for match in played if match.group == group]
        if not here:
            continue
        yield from _ratings(evidence.plan, group, here)
        for subject in subjects(evidence.plan):
            found = [(match, won) for match in here if (won := match.of(subject)) is not None]
            both = [(match, won) for match, won in found if match.usable]
            for measure, kept in ((WIN_RATE, found), (USABLE_WIN_RATE, both)):
                if kept:
                    yield _win_rate(evidence, measure, subject, group, kept)
            tied, prompts = [won == 0.5 for _, won in found], [match.prompt for match, _ in found]
            yield evidence.mean(TIES, subject, group, tied, prompts)


def matches(evidence: Evidence, judge: Judge) -> list[Match]:
    """Every two policies' replies to every prompt, compared; equal replies tie."""
    pairs, found = [], []
    for other, one in combinations(evidence.replies, 2):
        for a, b in zip(evidence.replies[one], evidence.replies[other], strict=True):
            group, prompt = a.row.set, a.row.prompt
            if group not in PROMPT_SETS:
                continue
            found.append(Match(one, other, group, prompt, a.usable and b.usable, 0.5))
            # Drawn by prompt: all policies and samples are judged under the same principles.
            item = a.row.id.rpartition("/")[0]
            drawn = principles_of(
                judge.principles, group, judge.per_pair, evidence.seed, repr(prompt)
            )
            pairs.append(
                ResponsePair(f"{item}/{one}/{other}", prompt, a.row.response, b.row.response, drawn)
            )
    asked = [i for i, pair in enumerate(pairs) if pair.first != pair.second]
    labeler = judge.labeler.make(judge.tools)
    for i, judgement in zip(asked, labeler.judge([pairs[i] for i in asked]), strict=True):
        found[i] = replace(found[i], outcome=outcome_of(judgement, judge.margin))
    return found


def principles_of(
    principles: tuple[FeedbackPrinciple, ...], group: str, count: int, seed: int, item: str
) -> tuple[FeedbackPrinciple, ...]:
    """Principles that replies to one prompt are compared under, at most ``count``.

    For helpful prompts, those that are tagged so, where the constitution has any.
    """
    helpful = tuple(p for p in principles if HELPFULNESS in p.tags)
    fit = helpful if group == "helpful" and helpful else principles
    return draw_principles(fit, min(count, len(fit)), seed, "win_rate", "principles", item)


def outcome_of(judgement: Judgement, margin: float) -> float:
    """1 or 0 where both orders, over all principles, lie beyond the margin on one side; or 0.5."""
    orders = np.array([judgement.shown_first.mean(), judgement.shown_second.mean()]) - 0.5
    return 0.5 + 0.5 * bool((orders > margin).all()) - 0.5 * bool((orders < -margin).all())


def _win_rate(
    evidence: Evidence, measure: Measure, subject: str, group: str, kept: list[tuple[Match, float]]
) -> Measurement:
    """A share; of two policies with the distance from one half that would have shown."""
    won, prompts = np.array([won for _, won in kept]), [match.prompt for match, _ in kept]
    share = evidence.mean(measure, subject, group, won, prompts)
    if subject in evidence.plan.policies:
        return share
    apart = by_cluster(won - 0.5, numbered(prompts))
    least = least_half_width(share.mean - 0.5, 0.5, len(apart.sums))
    return replace(share, detectable=detectable_difference(apart, least))


def _ratings(plan: Plan, group: str, here: list[Match]) -> Iterator[Measurement]:
    """Elo of all policies, and differences of two."""
    number = {policy: i for i, policy in enumerate(plan.policies)}
    unit = np.array(numbered([match.prompt for match in here]))
    first, second = (np.array([number[getattr(m, s)] for m in here]) for s in ("first", "second"))
    of_one = np.eye(len(number)) - 1 / len(number)
    of_two = [of_one[number[one]] - of_one[number[other]] for other, one in combinations(number, 2)]
    games = Games(first, second, np.array([match.outcome for match in here]), unit)
    ratings = rate(games, len(number), np.array([*of_one, *of_two]))
    for i, subject in enumerate(subjects(plan)):
        n = sum(match.of(subject) is not None for match in here)
        elo, low, high = (float(v[i]) for v in (ratings.elo, ratings.low, ratings.high))
        yield Measurement(ELO.name, subject, group, n, elo, low, high, len(set(unit)))


def _win_rates_by(
    title: str,
    judge: Callable[[Tools], Judge | None],
    measures: Callable[[Plan], tuple[Measure, ...]],
    warning: Callable[[Plan], str],
) -> Evaluator:
    """Win rates by one judge, where there is that judge."""

    def measured(evidence: Evidence) -> Iterator[Measurement]:
        if (found := judge(evidence.tools)) is not None:
            yield from evaluate(evidence, found)

    def programs(tools: Tools) -> list[Program]:
        found = judge(tools)
        return found.labeler.programs(found.tools, title[0].lower() + title[1:]) if found else []

    return Evaluator(
        title,
        subjects,
        measures,
        measured,
        programs,
        cases="comparisons of replies to a held-out prompt; those on one prompt count as one unit",
        given="the models of this run, the judge, and the principles drawn for each prompt",
        warning=warning,
    )


TRAINED_ON = (
    "{} has the weights whose labels the policies learned from: it shows whether they "
    "learned them, not whether they are better. {}"
)
WIN_RATES = _win_rates_by(
    "Win rates and Elo by the feedback model",
    lambda tools: tools.judge,
    lambda plan: MEASURES,
    lambda plan: TRAINED_ON.format(
        "The judge of these win rates",
        "See those of the other judge."
        if plan.other_judge
        else "Name another model beside it in config.evaluate.judge.",
    ),
)
JUDGE_WIN_RATES = _win_rates_by(
    "Win rates and Elo by another judge",
    lambda tools: tools.other_judge,
    lambda plan: MEASURES if plan.other_judge else (),
    lambda plan: (
        TRAINED_ON.format("config.evaluate.judge", "Name another.")
        if plan.judge_is_feedback
        else ""
    ),
)
