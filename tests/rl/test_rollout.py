"""Rollouts as arrays."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.generation.engine import Completion
from cai_jax.rl.rollout import Width, assemble, halvings, holding


def test_assembled_rollout_keeps_prompt_left_and_response_right():
    done = Completion([7, 2], np.array([-1.0, -2.0], np.float32), True)
    rollout = assemble([[5, 6], [4]], [done, done], [2, 1], np.array([0.25, 1.5]), Width(3, 4))
    np.testing.assert_array_equal(rollout.tokens_bt[0], [0, 5, 6, 7, 2, 0, 0])
    np.testing.assert_array_equal(rollout.segments_bt[1], [0, 0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(rollout.mask_bn[1], [1, 1, 0, 0])
    np.testing.assert_array_equal(rollout.judged_bn, [[1, 1, 0, 0], [1, 0, 0, 0]])
    np.testing.assert_array_equal(rollout.sampler_logprobs_bn[0], [-1, -2, 0, 0])


@given(limit=st.integers(1, 5000), least=st.integers(1, 300), length=st.integers(0, 5000))
def test_widths_are_few_and_the_least_that_holds_is_taken(limit, least, length):
    widths = halvings(limit, least)
    assert widths[0] == limit
    assert widths == sorted(set(widths), reverse=True)
    assert len(widths) <= 2 + np.log2(max(limit / least, 1))
    assert all(width >= least for width in widths[1:])
    length = min(length, limit)
    taken = holding(length, widths)
    assert taken in widths
    assert taken >= length
    assert all(width < length for width in widths if width < taken)


def test_a_short_limit_has_one_width():
    assert (halvings(96, 64), halvings(64, 64), halvings(24, 64)) == ([96], [64], [24])
    assert halvings(256, 64) == [256, 128, 64]
