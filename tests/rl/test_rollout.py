"""Rollouts as arrays."""

import numpy as np

from cai_jax.generation.engine import Completion
from cai_jax.rl.rollout import assemble


def test_assembled_rollout_keeps_prompt_left_and_response_right():
    done = Completion([7, 2], np.array([-1.0, -2.0], np.float32), True)
    rollout = assemble([[5, 6], [4]], [done, done], [2, 1], np.array([0.25, 1.5]), 3, 4)
    np.testing.assert_array_equal(rollout.tokens_bt[0], [0, 5, 6, 7, 2, 0, 0])
    np.testing.assert_array_equal(rollout.segments_bt[1], [0, 0, 1, 1, 1, 0, 0])
    np.testing.assert_array_equal(rollout.mask_bt[1], [0, 0, 0, 1, 1, 0, 0])
    np.testing.assert_array_equal(rollout.judged_bt, [[0, 0, 0, 1, 1, 0, 0], [0, 0, 0, 1, 0, 0, 0]])
    np.testing.assert_array_equal(rollout.sampler_logprobs_bt[0], [0, 0, 0, -1, -2, 0, 0])
