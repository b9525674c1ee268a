"""Distance from the base model."""

from small_evidence import evidence, means

from cai_jax.evaluation.kl import KL


def test_log_ratios_are_summed_over_a_response():
    found = means(KL.evaluate(evidence()))
    assert found["kl_to_base", "rl_cai", "red_team"] == 2 * (-1.0 - -3.0)  # two tokens each
    assert found["kl_to_base", "base", "red_team"] == 0.0  # by definition
