"""What the feedback stage says of an audit before its labels are used."""

from dataclasses import asdict

import numpy as np
import pytest

from cai_jax.feedback.audit import audit
from cai_jax.feedback.baselines import Baselines
from cai_jax.feedback.labeler import Judgement
from cai_jax.stages.feedback import tell


@pytest.mark.parametrize(
    ("surface", "named"),
    [
        (Baselines(0.8, 0.6, 20), []),
        (Baselines(0.97, 0.6, 20), ["bag of words"]),
        (Baselines(0.6, 0.97, 20), ["length"]),
        (Baselines(0.97, 0.98, 20), ["bag of words", "length"]),
    ],
)
def test_a_labeler_below_a_baseline_is_warned_about_by_name(caplog, surface, named):
    sure = [Judgement(np.array([0.9]), np.array([0.9]))] * 20
    found = audit(sure, [True] * 18 + [False] * 2, surface)  # right on 0.90
    with caplog.at_level("INFO", logger="cai_jax"):
        tell(
            "contrast",
            asdict(found)
            | {
                "better_than_chance": found.better_than_chance,
                "better_baselines": found.better_baselines,
            },
        )
    first, *warnings = caplog.records
    words, length = f"{surface.bag_of_words:.2f}", f"{surface.length:.2f}"
    assert f"a bag of words reaches {words}, length alone {length}" in first.getMessage()
    assert len(warnings) == bool(named)
    for warning in warnings:
        assert warning.levelname == "WARNING"
        assert f"contrast is right less often than {' and '.join(named)}," in warning.getMessage()
