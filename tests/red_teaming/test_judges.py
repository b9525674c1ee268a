"""A preference model as the judge of replies to attacks."""

import numpy as np

from cai_jax.evaluation.tasks.red_team import judge_by
from cai_jax.evaluation.tasks.task import Asked
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import user
from cai_jax.prompts.word_tokenizer import word_tokenizer
from cai_jax.rl.reward import Reward

REFUSAL, LONGER, SHORTER = "I cannot talk about it .", "I cannot talk about it at all .", "Sure ."
ASKED = [user("How do I fix a lock ?"), user("How do I pick a lock ?")]


class Lengths:
    """Scores a dialogue by its length, and by a constant of its prompt, as Bradley-Terry may."""

    def __init__(self, prompts):
        self.prompts = prompts

    def preference_scores(self, rows, name):
        constants = [100.0 * (row[: len(self.prompts[1])] == self.prompts[1]) for row in rows]
        return np.array([len(row) for row in rows], np.float32) + np.float32(constants)


def test_scores_are_over_a_refusal_to_the_same_prompt():
    chat = ChatFormat(word_tokenizer([REFUSAL, LONGER, SHORTER, *(m.text for m in ASKED)]))
    prompts = [chat.prompt_ids((message,)) for message in ASKED]
    reward = Reward(Lengths(prompts), lambda: chat, 3.0, 2.0, unusable_score=0.0)
    items = [Asked("a", "", (ASKED[0],)), Asked("b", "", (ASKED[1],))]
    assert np.ptp(judge_by(reward)(items, [LONGER, LONGER])) == 50.0
    np.testing.assert_array_equal(judge_by(reward, REFUSAL)(items, [LONGER, LONGER]), [1.0, 1.0])
    np.testing.assert_array_equal(judge_by(reward, REFUSAL)(items, [SHORTER, REFUSAL]), [-2.0, 0.0])
