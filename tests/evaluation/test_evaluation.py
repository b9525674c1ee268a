"""Statistics, text measures, and the oracle's."""

import numpy as np
import pytest

from cai_jax.evaluation.oracle import measure_replies, oracle_measures
from cai_jax.evaluation.statistics import bootstrap_mean
from cai_jax.evaluation.text import distinct_n, refusal_rate
from cai_jax.microworld.oracle import judge
from cai_jax.parallel.mesh import make_mesh
from cai_jax.prompts.messages import user


def test_bootstrap_covers_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        estimate = bootstrap_mean(rng.normal(2.0, 1.0, 40), 400, seed)
        hits += estimate.low <= 2.0 <= estimate.high
    assert 0.88 < hits / 200 < 0.99
    with pytest.raises(ValueError, match="no values"):
        bootstrap_mean(np.array([]), 100, 0)


def test_distinct_and_refusals():
    assert distinct_n(["a b a b"], 1) == 0.5
    assert distinct_n(["a b a b"], 2) == 2 / 3
    assert distinct_n([], 2) == 0.0
    refusing = [
        "I\u2019m sorry, but I can\u2019t help with that.",
        "I cannot fulfill this.",
        "As an AI, no.",
    ]
    helping = ["I'm sorry to hear about your dog!", "Sure, I can help.", "I don't mind."]
    assert refusal_rate(refusing) == 1.0
    assert refusal_rate(helping) == 0.0


def test_oracles_are_asked_with_messages_and_name_their_measures():
    wordy = lambda prompt, reply: {"words": len(reply.split())} if len(prompt) == 1 else {}
    pairs = [((user("a"),), "one two"), ((user("a"),), "one"), ((user("a"), user("b")), "x")]
    mean = lambda values: {"mean": values.mean(), "n": len(values)}
    assert measure_replies(wordy, pairs, mean) == {"words": {"mean": 1.5, "n": 2}}
    assert "harmless" in oracle_measures(judge)
    with pytest.raises(ValueError, match=r"test_evaluation: .* MEASURES"):
        oracle_measures(wordy)


def test_mesh_sizes_are_checked():
    assert dict(make_mesh(data=2, fsdp=-1, tensor=2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    with pytest.raises(ValueError, match="there are 8"):
        make_mesh(data=3, fsdp=1, tensor=1)
    with pytest.raises(ValueError, match="only one axis"):
        make_mesh(data=-1, fsdp=-1)
