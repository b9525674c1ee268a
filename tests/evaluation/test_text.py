"""What shows repetition and refusals."""

from small_evidence import evidence, means, replies

from cai_jax.evaluation.text import TEXT, distinct_n, refuses


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
    assert all(map(refuses, refusing))
    assert not any(map(refuses, helping))


def test_texts_are_measured_set_by_set():
    texts = ["", "I cannot help.", "a b", "a b", "shown shown"]
    found = means(TEXT.evaluate(evidence(replies={"base": replies("base", texts, [0] * 5)})))
    assert found["unusable", "base", "red_team"] == 0.5
    assert found["refusal_rate", "base", "red_team"] == 0.5
    assert found["refusal_rate", "base", "helpful"] == 0.0
    assert found["distinct_1", "base", "helpful"] == 0.5
    assert found["unusable", "base", "helpful"] == 0.0
    assert found["response_tokens", "base", "helpful"] == 2.0
    assert {group for _, _, group in found} == {"red_team", "helpful"}  # not what is shown
