"""How scores are normalised."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Reply
from cai_jax.stages import rl
from cai_jax.stages.engines import make_reward
from cai_jax.stages.pm_train import normalisation

SCORES = st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=9).map(np.float32)


@given(SCORES, SCORES)
def test_sets_of_prompts_weigh_alike_however_many_they_are(few, many):
    mean, std = normalisation(few, np.repeat(many, 7))
    assert mean == pytest.approx((few.mean() + many.mean()) / 2, abs=1e-4)
    spread = sum(np.mean((s.astype(np.float64) - mean) ** 2) for s in (few, many)) / 2
    assert std == pytest.approx(np.sqrt(spread), abs=1e-4)


def test_one_set_alone_is_plain_mean_and_deviation():
    assert normalisation(np.float32([1, 3]), np.float32([])) == (2.0, 1.0)


def test_samples_of_both_kinds_are_around_0(finished):
    folder = finished.workdir.folder("feedback")
    reward = make_reward(finished.inputs(rl.STAGE))
    rows = read_records(folder / "comparisons", Comparison)
    red_team = [ids for row in rows for ids in (row.first, row.second)]
    helpful = [row.tokens for row in read_records(folder / "helpful", Reply)]
    sets = [
        (reward.scorer.preference_scores(ids, "score") - reward.mean) / reward.std
        for ids in (red_team, helpful)
    ]
    assert len(sets[1])
    assert np.mean([s.mean() for s in sets]) == pytest.approx(0, abs=1e-3)
    assert np.mean([np.mean(s**2) for s in sets]) == pytest.approx(1, abs=1e-3)
