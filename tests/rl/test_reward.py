"""Rewards: normalised scores, and what replies earn that do not parse."""

import numpy as np
import pytest

from cai_jax.generation.engine import Completion
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.rl.reward import Reward, usable_text


class Lengths:
    """Scores a dialogue by its length."""

    def __init__(self):
        self.rows = []

    def preference_scores(self, rows, name):
        self.rows += rows
        return np.array([len(row) for row in rows], np.float32)


@pytest.fixture
def chat(model_folder):
    return ChatFormat(load_tokenizer(model_folder))


def test_scores_are_normalised(chat):
    scorer = Lengths()
    scores = Reward(scorer, lambda: chat, 3.0, 2.0, -2.0)([[5, 6, 7], [5]], ["the good.", "good."])
    expected = [[5, 6, 7, *chat.reply_ids("the good.")], [5, *chat.reply_ids("good.")]]
    assert scorer.rows == expected  # what is rewarded ends as what was trained on
    np.testing.assert_allclose(scores, [(len(row) - 3.0) / 2.0 for row in expected])
    assert scores.dtype == np.float32


def test_replies_that_do_not_parse_earn_a_fixed_score(chat):
    scorer = Lengths()
    reward = Reward(scorer, lambda: chat, 3.0, 2.0, -2.0)
    scores = reward([[5, 6, 7]] * 3, [None, "the good.", None])
    alone = reward([[5, 6, 7]], ["the good."])
    np.testing.assert_allclose(scores, [-2.0, alone[0], -2.0])
    assert scores[1] != scores[0]
    assert len(scorer.rows) == 2
    np.testing.assert_array_equal(reward([[5]], [None]), [-2.0])  # without a call of the scorer


def test_only_whole_sentences_are_judged(chat):
    say = lambda text, finished: usable_text(
        chat, Completion(chat.reply_ids(text), np.zeros(0, np.float32), finished)
    )
    assert say("the good .", True) is not None
    assert say("", True) is None
