"""What critique and revision change."""

from dataclasses import replace

from small_evidence import PLAN, evidence, means, revision

from cai_jax.evaluation.revisions import REVISIONS


def test_rounds_are_compared_on_the_prompts_that_all_have():
    found = means(REVISIONS.evaluate(evidence()))
    scores = [found["score", f"revision {number}", ""] for number in range(3)]
    assert scores == [2.0, 2.5, 4.0]  # without the prompt z, whose first revision did not parse
    assert found["merit", "revision 2", ""] == 4.0


def test_without_an_oracle_there_is_the_score():
    plain = replace(PLAN, oracle=())
    found = means(REVISIONS.evaluate(evidence(plan=plain, oracle=None)))
    assert {name for name, _, _ in found} == {"score"}
    assert [measure.name for measure in REVISIONS.measures(plain)] == ["score"]


def test_no_prompt_has_all_rounds():
    steps = [revision("x", 0, "a"), revision("y", 1, "a")]
    assert not list(REVISIONS.evaluate(evidence(revisions=steps)))
