"""Labelers: what each asks of the model, and what it makes of the answers."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT
from tiny_model import write_tiny_model

from cai_jax.constitution.schema import FeedbackPrinciple, load_constitution
from cai_jax.feedback.labeler import LabelerTools, ResponsePair
from cai_jax.feedback.registry import LABELERS
from cai_jax.generation.engine import Completion
from cai_jax.generation.sampling import Sampling
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.prompts.few_shots import FewShots
from cai_jax.prompts.messages import system, user

PRINCIPLES = tuple(
    FeedbackPrinciple(f"p{i}", "me", ("tag",), f"{word} is better ?", f"be {word}", "do harm")
    for i, word in enumerate(("kind", "safe"))
)
PAIRS = [
    ResponsePair("a", (user("how"),), "good", "bad", PRINCIPLES),
    ResponsePair("b", (system("you work"), user("why")), "bad", "good food", PRINCIPLES[:1]),
]


@pytest.fixture(scope="module")
def chat(tmp_path_factory):
    folder = write_tiny_model(tmp_path_factory.mktemp("labelers") / "tiny", ("The",))
    return ChatFormat(load_tokenizer(folder))


class FakeModel:
    """Scores and samples by rule, and remembers what it was asked."""

    def __init__(self, chat, prefers, thought="so good"):
        self.chat, self.prefers, self.thought = chat, prefers, thought
        self.texts, self.keys, self.shared = [], [], []

    def choice_logprobs(self, rows, choices):
        self.texts += [self.chat.tokenizer.decode(row) for row in rows]
        a = np.array([self.prefers(text.split("Options")[-1]) for text in self.texts[-len(rows) :]])
        return np.log(np.stack([a, 1 - a], axis=1))

    def completion_logprobs(self, prompts, completions, name):
        self.texts += [self.chat.tokenizer.decode(row) for row in prompts]
        said = zip(self.texts[-len(prompts) :], completions, strict=True)
        return [np.full(len(ids), self.prefers(text, ids)) for text, ids in said]

    def generate(self, prompts, keys, max_new_tokens, sampling, name, shared=None):
        self.keys += [tuple(key.tolist()) for key in keys]
        self.shared += [
            self.chat.tokenizer.decode(p[:n]) for p, n in zip(prompts, shared, strict=True)
        ]
        ids = self.chat.reply_ids(self.thought)
        return [Completion(ids, np.zeros(len(ids)), True) for _ in prompts]


def made(name, model, examples=(), chains=1):
    tools = LabelerTools(
        scorer=model,
        generator=model,
        open_chat=lambda: model.chat,
        few_shots=FewShots(tuple(examples), len(examples), 3),
        sampling=Sampling(0.7),
        seed=3,
        reasoning_tokens=9,
        chains=chains,
        clamp_low=0.4,
        clamp_high=0.6,
        contrast_scale=2.0,
    )
    return LABELERS[name].make(tools)


def good_first(options):
    """P(A) of a judge who knows what is good, wherever it stands."""
    return 0.9 if options.index("good") < options.index("bad") else 0.1


def likes_kindness(prompt, ids):
    """Nats a token: two replies that differ under kindness alone."""
    return -1.0 if "be kind" in prompt and len(ids) == 1 else -1.5


@pytest.mark.parametrize("name", LABELERS)
def test_every_pair_is_judged_under_every_principle(chat, name):
    model = FakeModel(chat, likes_kindness if name == "contrast" else good_first)
    judged = made(name, model).judge(PAIRS)
    assert [len(j.shown_first) for j in judged] == [len(pair.principles) for pair in PAIRS]


@pytest.mark.parametrize(("name", "right"), [("multiple_choice", 0.9), ("chain_of_thought", 0.6)])
def test_letters_become_labels_of_the_first_response(chat, name, right):
    judged = made(name, FakeModel(chat, good_first)).judge(PAIRS)
    for judgement, expected in zip(judged, (0.9, 0.1), strict=True):
        np.testing.assert_allclose(judgement.shown_first, expected)
        np.testing.assert_allclose(judgement.shown_second, expected)
        label = right if expected == 0.9 else 1 - right
        assert judgement.probability == pytest.approx(label)


@pytest.mark.parametrize("name", ["multiple_choice", "chain_of_thought"])
def test_position_bias_is_averaged_out(chat, name):
    for judgement in made(name, FakeModel(chat, lambda options: 0.8)).judge(PAIRS):
        assert judgement.probability == pytest.approx(0.5)
        assert judgement.shown_first[0] > 0.5 > judgement.shown_second[0]


@pytest.mark.parametrize("chains", [1, 5])
def test_every_chain_of_thought_has_a_key_of_its_own(chat, chains):
    together, alone = FakeModel(chat, good_first), FakeModel(chat, good_first)
    made("chain_of_thought", together, chains=chains).judge(PAIRS)
    made("chain_of_thought", alone, chains=chains).judge(PAIRS[1:])
    assert len(set(together.keys)) == len(together.keys) == 6 * chains
    # Named by pair, principle, order and chain, not by number.
    assert together.keys[4 * chains :] == alone.keys


def test_orders_that_disagree_are_averaged_before_they_are_clamped(chat):
    """Sure of one order and unsure of the other is a label; clamped first, it would be 0.5."""
    surely = lambda options: 0.99 if options.index("good") < options.index("bad") else 0.55
    for judgement in made("chain_of_thought", FakeModel(chat, surely)).judge(PAIRS[:1]):
        np.testing.assert_allclose(judgement.shown_first, 0.99)
        np.testing.assert_allclose(judgement.shown_second, 0.45)
        assert judgement.probability == pytest.approx(0.6)  # 0.72, clamped
    mildly = lambda options: 0.56 if options.index("good") < options.index("bad") else 0.5
    (judgement,) = made("chain_of_thought", FakeModel(chat, mildly)).judge(PAIRS[:1])
    assert judgement.probability == pytest.approx(0.53)


def test_answers_of_chains_are_averaged(chat):
    """Chains that end differently, order by order."""
    answers = iter([0.9, 0.5, 0.4, 0.2, 0.2, 0.5])  # of the first order, then of the second
    model = FakeModel(chat, lambda options: next(answers))
    (judgement,) = made("chain_of_thought", model, chains=3).judge(
        [replace(PAIRS[0], principles=PRINCIPLES[:1])]
    )
    np.testing.assert_allclose(judgement.shown_first, [0.6])
    np.testing.assert_allclose(judgement.shown_second, [0.7])
    assert judgement.probability == pytest.approx(0.6)


def test_what_was_reasoned_is_kept_pair_by_pair(chat):
    """Of each principle, of each order, every chain."""
    model = FakeModel(chat, good_first)
    first, *others = made("chain_of_thought", model, chains=2).judge(PAIRS)
    assert len(first.thoughts) == 2 * 2 * len(PAIRS[0].principles)
    assert set(first.thoughts) == {"so good"}
    assert [len(j.thoughts) for j in others] == [4 * len(p.principles) for p in PAIRS[1:]]
    assert made("multiple_choice", model).judge(PAIRS)[0].thoughts == ()


def test_each_chain_stands_with_its_pair(chat):
    """Texts are numbered as they are asked for: pair by pair."""
    model = FakeModel(chat, good_first)
    numbered = iter(range(99))
    ids = lambda: model.chat.reply_ids(f"so {next(numbered)}")
    model.generate = lambda prompts, *_: [Completion(ids(), np.zeros(1), True) for _ in prompts]
    judged = made("chain_of_thought", model).judge(PAIRS)
    assert [t for j in judged for t in j.thoughts] == [
        chat.text(chat.reply_ids(f"so {n}")) for n in range(sum(len(j.thoughts) for j in judged))
    ]


def test_a_chain_that_answers_is_cut_before_its_answer(chat):
    model = FakeModel(chat, good_first, thought="it is safe The better response is ( B ) so")
    made("chain_of_thought", model).judge(PAIRS[:1])
    assert len(model.texts) == 4
    assert all(text.endswith("it is safe The better response is (") for text in model.texts)


def test_contrast_compares_likelihoods_under_the_principle_and_its_opposite(chat):
    model = FakeModel(chat, likes_kindness)
    first, second = made("contrast", model).judge(PAIRS)
    # Under kindness the short reply gains half a nat over its opposite, the long one nothing.
    kind = 1 / (1 + np.exp(-2.0 * 0.5))
    np.testing.assert_allclose(first.shown_first, [0.5, 0.5])  # "good" and "bad" are both short
    np.testing.assert_allclose(second.shown_first, [kind])
    np.testing.assert_allclose(second.shown_second, [kind])
    # What a prompt says to the system stays, after the principle.
    assert "<|im_start|> system be kind you work <|im_end|>" in " ".join(model.texts)
    assert "<|im_start|> system do harm you work <|im_end|>" in " ".join(model.texts)


def test_contrast_reads_a_response_that_is_in_several_pairs_once(chat):
    model = FakeModel(chat, likes_kindness)
    pair = PAIRS[1]
    other = ResponsePair("again", pair.prompt, pair.first, "so", pair.principles)
    together = made("contrast", model).judge([pair, other])
    assert len(model.texts) == 6 * len(pair.principles)  # not 8
    alone = [made("contrast", FakeModel(chat, likes_kindness)).judge([p])[0] for p in (pair, other)]
    for one, same in zip(together, alone, strict=True):
        np.testing.assert_array_equal(one.shown_first, same.shown_first)


def test_silence_is_as_likely_as_its_end_of_turn(chat):
    silent = ResponsePair("s", (user("how"),), "", "good", PRINCIPLES)
    (judgement,) = made("contrast", FakeModel(chat, likes_kindness)).judge([silent])
    np.testing.assert_allclose(judgement.shown_first, [0.5, 0.5])


@pytest.mark.parametrize("name", LABELERS)
def test_few_shots_stand_before_the_question(chat, name):
    constitution = load_constitution(ROOT / "constitutions" / "harmless.yaml")
    there = LABELERS[name].few_shots(constitution)
    model = FakeModel(chat, likes_kindness if name == "contrast" else good_first)
    made(name, model, (there or ())[:2]).judge(PAIRS[:1])
    turns = {text.count("<|im_start|> user") for text in model.texts}
    assert turns == ({1} if there is None else {3})
    assert (there is None) == (name == "contrast")
    # Chains are sampled behind few-shots that are read once for all of a pair.
    assert len(set(model.shared)) == (name == "chain_of_thought")
    assert all(text.count("<|im_start|> user") == 2 for text in model.shared)
