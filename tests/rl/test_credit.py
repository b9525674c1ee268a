"""What is credited is what is rewarded: tokens that no score is of get nothing from any score."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from rl_numbers import CONSTANTS, rewards_of
from rl_setting import ALGORITHM

from cai_jax.rl.advantages import generalized_advantages
from cai_jax.rl.grpo import GRPO
from cai_jax.rl.masked import whiten
from cai_jax.rl.rloo import RLOO

ROWS, WIDTH = 6, 8
# Not so small that a product of them is rounded to 0.
some = lambda shape, most: arrays(
    np.float32, shape, elements=st.floats(-most, most, width=16, allow_subnormal=False)
)
NUMBERS, SCORES = some((ROWS, WIDTH), 5), some(ROWS, 50)
FACTORS = st.floats(0, 1, width=16, allow_subnormal=False)
GROUPS = CONSTANTS | {"samples_per_prompt": 3}


@st.composite
def responses(draw):
    """Masks of responses from the second column on, and of their judged parts."""
    lengths = np.array(draw(st.lists(st.integers(1, WIDTH - 1), min_size=ROWS, max_size=ROWS)))
    judged = np.array([draw(st.integers(1, int(length))) for length in lengths])
    after = np.arange(WIDTH) - 1
    mask = (after >= 0) & (after < lengths[:, None])
    return mask.astype(np.float32), (mask & (after < judged[:, None])).astype(np.float32)


def placed(scores, judged, penalties, mask):
    """Rewards with the scores on the last judged tokens."""
    score = np.zeros(judged.shape, np.float32)
    last = [np.flatnonzero(row)[-1] for row in judged]
    score[np.arange(ROWS), last] = scores
    return rewards_of(score, penalties * mask)


@jax.jit
def ppo(rewards, values, mask, judged, gamma, lam):
    """PPO's credit, with gamma and lambda that need no compilation each."""
    dynamic = object.__new__(type(ALGORITHM))
    dynamic.__dict__.update(ALGORITHM.__dict__, gamma=gamma, lam=lam)
    return dynamic.credit(rewards, values, mask, judged)


@partial(jax.jit, static_argnames="kind")
def compared(rewards, mask, judged, kind):
    return kind(**GROUPS).credit(rewards, None, mask, judged)[0]


@jax.jit
def of_penalties(rewards, mask, gamma, lam):
    zeros = jnp.zeros_like(mask)
    return generalized_advantages(rewards.penalty_bn, zeros, mask, gamma, lam)


@settings(max_examples=200, deadline=None)
@given(responses(), SCORES, NUMBERS, FACTORS, FACTORS)
def test_no_score_or_value_reaches_what_is_not_judged(masks, scores, values, gamma, lam):
    """Without KL penalties such tokens get exactly nothing: not from scores, from the value
    function, nor from the mean that whitening takes off."""
    mask, judged = masks
    rewards = placed(scores, judged, np.zeros_like(mask), mask)
    advantages, returns = ppo(rewards, values, mask, judged, gamma, lam)
    np.testing.assert_array_equal(np.asarray(advantages)[judged == 0], 0)
    np.testing.assert_array_equal(np.asarray(returns)[judged == 0], 0)


@settings(max_examples=200, deadline=None)
@given(responses(), SCORES, NUMBERS, NUMBERS, FACTORS, FACTORS)
def test_what_is_not_judged_keeps_its_kl_penalty(masks, scores, penalties, values, gamma, lam):
    """Up to whitening's scale, which is positive; no penalty ever becomes a bonus."""
    mask, judged = masks
    rewards = placed(scores, judged, penalties, mask)
    advantages = np.asarray(ppo(rewards, values, mask, judged, gamma, lam)[0])
    alone = np.asarray(of_penalties(rewards, mask, gamma, lam))
    tail = (mask > 0) & (judged == 0)
    np.testing.assert_array_equal(np.sign(advantages[tail]), np.sign(alone[tail]))
    largest = np.argmax(np.abs(np.where(tail, alone, 0)))
    if tail.any() and abs(alone.flat[largest]) > 1e-3:
        scale = advantages.flat[largest] / alone.flat[largest]
        assert scale > 0
        np.testing.assert_allclose(advantages[tail], scale * alone[tail], rtol=1e-4, atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(responses(), SCORES, NUMBERS)
def test_responses_that_are_compared_credit_scores_to_judged_tokens_alone(masks, scores, penalties):
    mask, judged = masks
    tail = (mask > 0) & (judged == 0)
    credit = lambda kind, *rewards: np.asarray(compared(placed(*rewards, mask), mask, judged, kind))
    none = np.zeros_like(penalties)
    for kind in (RLOO, GRPO):
        np.testing.assert_array_equal(credit(kind, scores, judged, none)[tail], 0)
    scored, unscored = (credit(RLOO, s, judged, penalties) for s in (scores, 0 * scores))
    np.testing.assert_allclose(scored[tail], unscored[tail], atol=1e-4)
    signs = [np.sign(credit(GRPO, s, judged, penalties)[tail]) for s in (scores, 0 * scores)]
    np.testing.assert_array_equal(*signs)


def test_judged_tokens_are_credited_as_if_the_response_ended_with_them():
    """Apart from KL penalties of what follows, which they led to."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(ROWS, WIDTH)).astype(np.float32)
    mask = np.ones((ROWS, WIDTH), np.float32)
    judged = (np.arange(WIDTH) < rng.integers(1, WIDTH, (ROWS, 1))).astype(np.float32)
    rewards = placed(rng.normal(size=ROWS), judged, 0 * mask, mask)
    found, returns = ppo(rewards, values, mask, judged, 0.9, 0.8)
    ended = generalized_advantages(rewards.score_bn, values, judged, 0.9, 0.8)
    np.testing.assert_allclose(found, whiten(ended, judged, judged), atol=1e-5)
    np.testing.assert_allclose(returns, (ended + values) * judged, atol=1e-5)
