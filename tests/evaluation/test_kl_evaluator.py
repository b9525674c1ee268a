"""Distance from the base model."""

import numpy as np
import pytest
from small_evidence import evidence, means

from cai_jax.evaluation.kl import KL, KL_TO_BASE


def test_log_ratios_are_summed_over_a_response():
    found = means(KL.evaluate(evidence()))
    assert found["kl_to_base", "rl_cai", "red_team"] == 2 * (-1.0 - -3.0)  # two tokens each
    assert found["kl_to_base", "base", "red_team"] == 0.0  # by definition


@pytest.mark.parametrize(("ratios", "mean"), [((0.1, 0.1, 4.0, -2.0), 0.55), ((-0.1, -0.3), -0.2)])
def test_no_interval_of_a_divergence_goes_below_0_but_for_the_estimate_itself(ratios, mean):
    found = evidence().mean(KL_TO_BASE, "rl_cai", "helpful", np.array(ratios))
    assert found.mean == pytest.approx(mean)
    assert found.low == min(0.0, found.mean)
    assert found.high >= 0.0
