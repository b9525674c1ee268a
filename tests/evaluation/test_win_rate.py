"""Win rates: who wins, what ties, and under which principles."""

from dataclasses import replace

import numpy as np
import pytest
from small_evidence import JUDGE, PLAN, PRINCIPLES, LongerIsBetter, evidence, replies

from cai_jax.evaluation.registry import sections
from cai_jax.evaluation.win_rate import (
    JUDGE_WIN_RATES,
    WIN_RATE,
    WIN_RATES,
    draw_principles,
    matches,
    outcome_of,
)
from cai_jax.feedback.audit import wilson_interval
from cai_jax.feedback.labeler import Judgement

BOTH = (WIN_RATES, JUDGE_WIN_RATES)


def measured(given):
    return {(m.measure, m.subject, m.group): m for m in WIN_RATES.evaluate(given)}


def of_three(**changes):
    """Three policies; the last writes most, the first least, and once nothing."""
    texts = {"base": ["", "a", "a", "a"], "sl": ["aa", "aa", "a", "b"], "rl": ["aaa"] * 4}
    said = {policy: replies(policy, [*t, "x"], [0] * 5) for policy, t in texts.items()}
    return evidence(plan=replace(PLAN, policies=tuple(texts)), replies=said, **changes)


def test_policies_win_against_each_and_against_all():
    found = measured(of_three())
    assert found["win_rate", "rl over base", "red_team"].mean == 1.0
    assert found["win_rate", "rl", "helpful"].mean == 1.0
    assert found["win_rate", "sl", "red_team"].mean == 0.5  # beats base, loses to rl
    assert found["win_rate", "sl over base", "helpful"].mean == 0.5
    assert found["ties", "sl over base", "helpful"].mean == 1.0  # equal, and no longer
    elo = [found["elo", policy, "red_team"].mean for policy in ("base", "sl", "rl")]
    assert elo == sorted(elo)
    assert np.isfinite(elo).all()
    gap = found["elo", "rl over base", "red_team"]
    assert gap.mean == pytest.approx(elo[2] - elo[0])
    assert gap.low < gap.mean < gap.high


def test_where_a_reply_does_not_parse_is_told_apart():
    found = measured(of_three())
    assert found["win_rate", "sl over base", "red_team"].n == 2
    assert found["usable_win_rate", "sl over base", "red_team"].n == 1


def test_samples_of_a_prompt_are_one_unit():
    said = {p: found * 2 for p, found in of_three().replies.items()}
    one = measured(of_three())["win_rate", "rl over base", "helpful"]
    two = measured(replace(of_three(), replies=said))["win_rate", "rl over base", "helpful"]
    assert (one.n, two.n, one.units, two.units) == (2, 4, 2, 2)
    assert (two.low, two.high) == pytest.approx((one.low, one.high))
    assert (one.low, one.high) == pytest.approx(wilson_interval(2, 2))
    assert "a true win rate of 50 ± " in one.told(WIN_RATE)
    assert one.detectable > 0.5  # of two prompts, not even a policy that always wins


@pytest.mark.parametrize(
    ("shown_first", "shown_second", "outcome"),
    [
        ([0.9, 0.8], [0.7, 0.6], 1.0),
        ([0.1], [0.3], 0.0),
        ([0.9], [0.1], 0.5),  # the labeler prefers whatever stands first
        ([0.9], [0.505], 0.5),
        ([0.9, 0.2], [0.9, 0.2], 1.0),  # principles are averaged
        ([0.5], [0.5], 0.5),
    ],
)
def test_orders_must_agree(shown_first, shown_second, outcome):
    judgement = Judgement(np.array(shown_first), np.array(shown_second))
    assert outcome_of(judgement, 0.02) == outcome


class Shorter(LongerIsBetter):
    """The other reply wins."""

    def judge(self, pairs):
        found = super().judge(pairs)
        return [Judgement(1 - j.shown_first, 1 - j.shown_second) for j in found]


class Recorder(LongerIsBetter):
    def judge(self, pairs):
        Recorder.pairs = list(pairs)
        return super().judge(pairs)


def test_all_policies_are_judged_under_the_same_principles():
    given = of_three()
    given = replace(given, tools=replace(given.tools, judge=replace(JUDGE, labeler=Recorder)))
    found = matches(given, given.tools.judge)
    drawn = {}
    for pair in Recorder.pairs:
        drawn.setdefault(pair.prompt, set()).add(pair.principles)
    assert all(len(principles) == 1 for principles in drawn.values())
    assert len({m.prompt for m in found}) == len(drawn) == 4  # what is only shown is left out
    assert len(found) - len(Recorder.pairs) == 1  # one pair of equal replies
    assert len({pair.id for pair in Recorder.pairs}) == len(Recorder.pairs)


def test_principles_are_drawn_by_seed_and_kind_of_prompt():
    draw = lambda group, seed, item="1": draw_principles(PRINCIPLES, group, 2, seed, item)
    assert draw("red_team", 0) == draw("red_team", 0)
    assert len({draw("red_team", seed) for seed in range(20)}) > 3
    assert [p.id for p in draw("helpful", 0)] == ["q"]  # tagged so
    untagged = draw_principles(PRINCIPLES[:1], "helpful", 2, 0, "1")
    assert [p.id for p in untagged] == ["p"]  # a constitution without such a tag has but its own


def test_a_judge_that_labelled_the_training_pairs_is_a_warning():
    warned = lambda plan: {s.name for s in sections(plan) if "labels the policies" in s.warning}
    assert warned(PLAN) == {"win_rate"}  # by the feedback model
    assert warned(replace(PLAN, other_judge=True)) == {"win_rate"}
    same = replace(PLAN, other_judge=True, judge_is_feedback=True)
    assert warned(same) == {"win_rate", "judge_win_rate"}


def test_another_judge_has_a_table_of_its_own():
    other = replace(JUDGE, labeler=Shorter)
    tools = replace(of_three().tools, other_judge=other)
    given = of_three(tools=tools)
    by = {e: {(m.measure, m.subject, m.group): m.mean for m in e.evaluate(given)} for e in BOTH}
    rl_over_base = ("win_rate", "rl over base", "helpful")
    assert [by[e][rl_over_base] for e in BOTH] == [1.0, 0.0]
    assert not list(JUDGE_WIN_RATES.evaluate(of_three()))
    names = lambda plan: {s.name for s in sections(plan)} & {"win_rate", "judge_win_rate"}
    assert names(PLAN) == {"win_rate"}
    assert names(replace(PLAN, other_judge=True)) == {"win_rate", "judge_win_rate"}
