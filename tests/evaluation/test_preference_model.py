"""The preference model on labelled pairs."""

import pytest
from small_evidence import evidence

from cai_jax.data.readers import LabelledPair
from cai_jax.evaluation.preference_model import PREFERENCE_MODEL
from cai_jax.feedback.audit import wilson_interval
from cai_jax.prompts.messages import user


def test_ties_count_half():
    sides = [("a b", "a"), ("a b c", "a"), ("a", "a"), ("a", "a b")]
    pairs = [LabelledPair(str(i), (user(f"harm {i}"),), *side) for i, side in enumerate(sides)]
    kinds = {"harmlessness": pairs, "helpfulness": pairs[:1]}
    harmlessness, helpfulness = PREFERENCE_MODEL.evaluate(evidence(pairs=kinds))
    assert (harmlessness.mean, harmlessness.n) == (0.625, 4)
    assert (harmlessness.low, harmlessness.high) == pytest.approx(wilson_interval(2.5, 4))
    assert (helpfulness.subject, helpfulness.mean) == ("helpfulness", 1.0)
