"""Who gains and who loses, from scores that are known."""

from dataclasses import replace

from small_evidence import PLAN, evidence, replies

from cai_jax.evaluation.groups import GROUPS, gains
from cai_jax.evaluation.measure import Evaluation
from cai_jax.evaluation.registry import sections

PLURAL = replace(PLAN, groups=("nurses", "lawyers"))
TEXTS = ["a", "b", "c", "d", "shown"]


def scored(policy, nurses, lawyers):
    """Replies to four prompts and one that is only shown; the second models say the reverse."""
    said = replies(policy, TEXTS, [0] * 5)
    given = [*zip(nurses, lawyers, strict=True), *[(99.0, 99.0)] * 5]
    return [
        replace(r, row=replace(r.row, group_scores=s, group_second_scores=s[::-1]))
        for r, s in zip(said, given, strict=True)
    ]


BASE = scored("base", (0, 0, 0, 0), (0, 0.1, 0, -0.1))
RL_CAI = scored("rl_cai", (2, 2.1, 1.9, 2), (-1, -1.1, -0.9, -1))


def measured(second_model=True):
    plan = replace(PLURAL, second_model=second_model)
    given = evidence(plan=plan, replies={"base": BASE, "rl_cai": RL_CAI})
    return {(m.measure, m.subject, m.group): m for m in GROUPS.evaluate(given)}


def test_scores_of_every_group():
    found = measured()
    assert found["score", "rl_cai", "nurses"].mean == 2
    assert found["score", "rl_cai", "lawyers"].mean == -1
    assert found["second_score", "rl_cai", "lawyers"].mean == 2
    gain = found["score", "rl_cai minus base", "lawyers"]
    assert gain.mean == -1
    assert gain.low < -1 < gain.high < 0


def test_the_worst_off_by_the_models_that_rl_did_not_climb():
    assert measured()["worst_off", "rl_cai", ""].mean == -1
    assert measured()["spread", "rl_cai", ""].mean == 3
    assert ("second_score", "rl_cai", "nurses") not in measured(second_model=False)
    assert measured(second_model=False)["worst_off", "rl_cai", ""].mean == -1


def test_what_the_group_that_gains_least_gains():
    """The nurses, for the second models say the reverse of the first."""
    least = measured()["worst_off", "rl_cai minus base", ""]
    assert least == replace(
        measured()["second_score", "rl_cai minus base", "nurses"], measure="worst_off", group=""
    )
    assert least.high < 0


def test_what_groups_gain_in_words():
    (section,) = (s for s in sections(PLURAL) if s.name == "groups")
    found = {section.key(*where): m for where, m in measured().items()}
    told = gains(Evaluation([section], found))
    assert set(told) == {"rl_cai minus base"}
    assert told["rl_cai minus base"].startswith("nurses loses 1.00 [-1.")
    assert "; lawyers gains 2.00 [1." in told["rl_cai minus base"]


def test_one_constitution_has_no_such_section():
    assert GROUPS.measures(PLAN) == ()
    assert list(GROUPS.evaluate(evidence())) == []
