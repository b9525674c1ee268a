"""Rewards: normalised scores, and what replies earn that do not parse."""

import numpy as np
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

from cai_jax.generation.engine import Completion
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.rl.reward import Objective, OverRefusal, Reward, Usable, below_usable, usable


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


def test_a_refusal_is_scored_once_for_each_prompt_and_model(chat):
    """Whoever replies, and to the numbers that it gets each time."""
    scorers = Lengths(), Lengths()
    rewards = {str(s): Reward(s, lambda: chat, 3.0, 2.0, -2.0) for s in scorers}
    both = Objective(rewards)
    over = OverRefusal(both, "no.")
    prompts = [[5], [5, 6], [5]]
    for said in (["the good.", None, "good."], ["good.", "good.", "the"]):
        found = over.by_group(prompts, said)
        refusals = both.by_group(prompts, ["no."] * 3)
        np.testing.assert_array_equal(found, both.by_group(prompts, said) - refusals)
        np.testing.assert_array_equal(over.together(found), both.together(found))
        np.testing.assert_array_equal(over(prompts, said), both.together(found))
    assert over.by_group([], []).shape == (2, 0)  # an attacker that wrote nothing
    for scorer in scorers:
        scorer.rows.clear()
    over.by_group([[5, 6], [7], [5]], [None, None, None])
    assert [scorer.rows for scorer in scorers] == [[[7, *chat.reply_ids("no.")]]] * 2


def test_groups_are_taken_together_by_their_mean_or_their_minimum(chat):
    """Each in its own deviations; one group is as if there were none, to the bit.

    The minimum is the worst-off group's score of every reply, of those that please it too.
    """
    rewards = {
        n: Reward(Lengths(), lambda: chat, m, s, -2.0) for n, m, s in (("a", 3, 2), ("b", 7, 1))
    }
    given = [[5, 6, 7], [5], [5]], ["the good.", None, "good."]
    a, b = (rewards[name](*given) for name in "ab")
    assert (a > b).tolist() == [True, False, True]
    assert b.mean() < a.mean()
    np.testing.assert_array_equal(Objective(rewards, "minimum")(*given), b)
    np.testing.assert_allclose(Objective(rewards, "mean")(*given), (a + b) / 2)
    for take in ("mean", "minimum"):
        alone = Objective({"": rewards["a"]}, take)(*given)
        np.testing.assert_array_equal(alone, a)
        assert alone.dtype == np.float32


def test_the_replies_that_are_measured_say_which_group_is_worst_off():
    scores = np.array([[1.0, 1.0, -9.0], [0.0, 0.0, 9.0]], np.float32)
    objective = Objective({"a": None, "b": None}, "minimum")
    assert objective.together(scores).tolist() == [1, 1, -9]
    assert objective.together(scores, np.array([True, True, False])).tolist() == [0, 0, 9]


def sampled(ids, finished):
    return Completion(list(ids), np.zeros(len(ids), np.float32), finished)


def test_the_judge_reads_what_was_sampled(chat):
    """The very tokens, as far as the last whole sentence, and the end of turn."""
    end, ids = chat.end_of_turn, chat.reply_ids("the good .")[:-1]
    cut = [*ids, *chat.reply_ids("and so")[:-1]]
    assert usable(chat, sampled([*cut, end], True)) == Usable("the good. and so", [*cut, end], 6)
    assert usable(chat, sampled(cut, False)) == Usable("the good.", [*ids, end], 3)
    assert usable(chat, sampled(ids, False)) == Usable("the good.", [*ids, end], 3)
    assert usable(chat, sampled(cut[3:], False)) is None
    assert usable(chat, sampled([end], True)) is None
    assert usable(chat, sampled([], False)) is None


def test_what_has_no_text_makes_a_reply_unusable(chat):
    """Decoding would hide it from whoever reads the text."""
    ids = chat.reply_ids("the good .")[:-1]
    special = [i for i, token in chat.tokenizer.added_tokens_decoder.items() if token.special]
    assert len(special) >= 2
    for hidden in (*special, len(chat.tokenizer), len(chat.tokenizer) + 7):
        for at in range(4):
            for finished in (True, False):
                reply = [*ids[:at], hidden, *ids[at:], *[chat.end_of_turn] * finished]
                assert usable(chat, sampled(reply, finished)) is None


def test_a_token_that_a_sentence_ends_in_is_judged_in_part():
    """The judge reads the sentence; the token, which says more, is not credited with it."""
    pieces = [("?", -9.0), ("好", -1.0), ("。我", -1.0), ("。", -2.0), ("<|end|>", 0.0)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True)])
    template = "{% for m in messages %}{{ m['content'] }}<|end|>{% endfor %}"
    chat = ChatFormat(
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="<|end|>", chat_template=template
        )
    )
    assert usable(chat, sampled([1, 2], False)) == Usable("好。", [1, 3, 4], 1)
    assert usable(chat, sampled([1, 3, 1], False)) == Usable("好。", [1, 3, 4], 2)
    assert usable(chat, sampled([1, 2, 4], True)) == Usable("好。我", [1, 2, 4], 3)


SCORED = Usable("", [], 1)


def test_unusable_replies_earn_less_than_others_to_their_prompt():
    """Whatever the constant that a preference model adds to all replies to a prompt."""
    replies = [SCORED, None, SCORED, SCORED, None, None, SCORED]
    prompts = ["a", "a", "a", "b", "b", "c", "d"]
    for offset in (-100, 0, 100):
        scores = np.array([offset, -2, offset + 1, 3, -2, -2, 7], np.float32)
        found = below_usable(scores, replies, prompts, 0.5)
        assert found.tolist() == [
            *(offset, offset - 0.5, offset + 1),
            *(3, 2.5),
            min(offset, 3) - 0.5,  # nothing to its prompt parses
            7,
        ]
        assert scores[1] == -2


def test_where_nothing_parses_all_earn_alike():
    found = below_usable(np.zeros(2, np.float32), [None, None], ["a", "b"], 0.5)
    np.testing.assert_array_equal(found, [-0.5, -0.5])
