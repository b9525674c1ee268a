"""What models pick: ties, several options, labelers two by two, likelihoods of answers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from task_settings import task_settings

from cai_jax.constitution.schema import load_constitution
from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import Choice
from cai_jax.evaluation.tasks.choices import BY_PREFERENCE_MODEL, by_labeler, picked
from cai_jax.evaluation.tasks.hhh import HHH
from cai_jax.evaluation.tasks.questions import QUESTIONS
from cai_jax.evaluation.tasks.registry import TASKS
from cai_jax.evaluation.tasks.task import TaskTools, check_lengths
from cai_jax.generation.engine import Completion
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.prompts.messages import assistant, user

HOW = (user("how"),)


def choice(right=("good",), wrong=("bad",), category="", prompt=HOW, id_="x"):
    return Choice(id_, category, prompt, right, wrong, JsonRow(Path("f.jsonl"), 7, {}))


class FakeModel:
    """Scores replies by words, prefers option (A) if it says better words; counts calls."""

    def __init__(self, chat, worth):
        self.chat, self.worth, self.asked, self.keys = chat, worth, [], []

    def _worth(self, text):
        return sum(self.worth.get(word, 0.0) for word in text.split())

    def preference_scores(self, rows, name):
        texts = [self.chat.tokenizer.decode(row) for row in rows]
        return np.array([self._worth(t.split("assistant")[-1]) for t in texts], np.float32)

    def choice_logprobs(self, rows, choices):
        self.asked += [self.chat.tokenizer.decode(row) for row in rows]
        found = []
        for text in self.asked[-len(rows) :]:
            options = text.split("Options")[-1].split("( A )")[-1].split("<|im_end|>")[0]
            first, second = (self._worth(side) for side in options.split("( B )"))
            found.append(1 / (1 + np.exp(second - first - 0.1)))  # (A) is liked a little
        return np.log(np.stack([found, 1 - np.array(found)], axis=1))

    def completion_logprobs(self, prompts, completions, name):
        texts = [self.chat.tokenizer.decode(row) for row in completions]
        return [
            np.full(len(ids), self._worth(text) / len(ids), np.float32)
            for ids, text in zip(completions, texts, strict=True)
        ]

    def generate(self, prompts, keys, max_new_tokens, sampling, name, shared=None):
        self.keys += [tuple(key.tolist()) for key in keys]
        return [Completion(self.chat.reply_ids("so"), np.zeros(2), True) for _ in prompts]


@pytest.fixture
def chat(model_folder):
    return ChatFormat(load_tokenizer(model_folder))


@pytest.fixture
def settings(chat):
    return task_settings(chat)


def tools(settings, **worth):
    model = FakeModel(settings.chat, worth)
    return TaskTools(settings, model, model)


@pytest.mark.parametrize(
    ("scores", "picks", "accuracy"),
    [
        ([2, 1], [0], 1),
        ([1, 2], [1], 0),
        ([1, 1], [0, 1], 1 / 2),
        ([3, 1, 2, 2], [0], 1),
        ([3, 1, 3, 3], [0, 2, 3], 1 / 3),  # best of four, three tie
        ([1, 2, 2, 0], [1, 2], 0),
        ([0, 0, 0, 0], [0, 1, 2, 3], 1 / 4),
    ],
)
def test_options_that_tie_share_the_item(scores, picks, accuracy):
    item = choice(wrong=tuple("abc"[: len(scores) - 1]))
    found = picked(item, scores).values
    assert found["picks"] == picks
    assert found["accuracy"] == pytest.approx(accuracy)
    assert found["ties"] == (len(picks) > 1)


def test_several_options_may_be_right():
    item = choice(right=("a", "b"), wrong=("c",))
    assert picked(item, [1, 3, 2]).values["accuracy"] == 1
    assert picked(item, [3, 0, 3]).values["accuracy"] == 0.5


def test_accuracy_is_of_all_and_by_category(settings):
    items = [
        choice(category="kind", id_="1"),
        choice(("bad",), ("good",), category="kind", id_="2"),
        choice(category="safe", id_="3"),
        choice(("time",), ("way",), category="safe", id_="4"),  # a tie
        choice(id_="5"),  # of no category
    ]
    items = [replace(item, messages=(user(f"how {item.id}"),)) for item in items]
    results = BY_PREFERENCE_MODEL.run(items, tools(settings, good=1.0))
    found = {(m.measure, m.group): m for m in HHH.measure("preference_model", results)}
    means = {group: m.mean for (name, group), m in found.items() if name == "accuracy"}
    assert means == {"all": 0.7, "kind": 0.5, "safe": 0.75}
    assert found["ties", "all"].mean == 0.2
    accuracy = found["accuracy", "all"]
    assert (accuracy.n, accuracy.subject) == (5, "preference_model")
    # Wilson's interval of 3.5 of 5, by hand.
    assert (accuracy.low, accuracy.high) == pytest.approx((0.2988, 0.9274), abs=1e-4)


def test_best_of_four_is_chosen_over_all_three(settings):
    item = choice(("good time",), ("bad", "way", "good"))
    (right,) = BY_PREFERENCE_MODEL.run([item], tools(settings, good=1.0, time=0.5))
    (wrong,) = BY_PREFERENCE_MODEL.run([item], tools(settings, good=1.0, way=3.0))
    assert (right.values["accuracy"], wrong.values["accuracy"]) == (1, 0)
    assert right.values["scores"] == [1.5, 0, 0, 1]


@pytest.mark.parametrize("method", ["multiple_choice", "chain_of_thought", "five_chains"])
def test_labelers_pick_by_both_orders(settings, method):
    """The liking for (A), 0.1, is larger than what tells the options apart, and averages out."""
    items = [
        choice(id_="1"),
        choice(("bad",), ("good",), id_="2"),
        choice(wrong=("time",), id_="3"),
    ]
    given = tools(settings, good=0.05, time=0.02)
    found = HHH.methods[method].run(items, given)
    assert [r.values["picks"] for r in found] == [[0], [1], [0]]
    logit = np.log(found[0].values["scores"][0] / found[0].values["scores"][1])
    assert logit == pytest.approx(0.05, rel=0.01)


def test_four_options_are_compared_two_by_two(settings):
    item = choice(("good",), ("bad", "way", "time"))
    given = tools(settings, good=2.0, way=1.0, bad=-1.0)
    (found,) = by_labeler("multiple_choice").run([item], given)
    assert len(given.scorer.asked) == 12  # six pairs, two orders
    assert found.values["picks"] == [0]
    assert np.argsort(found.values["scores"]).tolist() == [1, 3, 2, 0]
    assert sum(found.values["scores"]) == pytest.approx(2)  # six wins over three games each


@pytest.mark.parametrize(("method", "chains"), [("chain_of_thought", 1), ("five_chains", 5)])
def test_every_chain_has_a_key_of_its_own(settings, method, chains):
    given = tools(settings, good=1.0)
    HHH.methods[method].run([choice(id_="1"), choice(id_="2")], given)
    assert len(set(given.generator.keys)) == len(given.generator.keys) == 2 * 2 * chains


def test_five_chains_are_averaged(settings):
    given = tools(settings)
    probabilities = [*np.linspace(0.1, 0.9, 5)] * 2  # of (A): five chains of each order
    given.scorer.choice_logprobs = lambda rows, choices: np.log(
        np.stack([np.array(probabilities), 1 - np.array(probabilities)], axis=1)
    )
    (found,) = HHH.methods["five_chains"].run([choice()], given)
    assert found.values["scores"][0] == pytest.approx(0.5)
    probabilities[:5] = [0.9] * 5  # shown first, all say the right one
    (found,) = HHH.methods["five_chains"].run([choice()], given)
    second = 1 - np.linspace(0.1, 0.9, 5)
    assert found.values["scores"][0] == pytest.approx((0.9 + second.mean()) / 2)


def test_contrast_sees_the_dialogue_under_both_principles(settings):
    talk = (user("how"), assistant("so"), user("why"))
    given = tools(settings, good=1.0)
    seen = []
    given.scorer.completion_logprobs = lambda prompts, completions, name: [
        seen.append(settings.chat.tokenizer.decode(p)) or np.array([-1.0]) for p in prompts
    ]
    (found,) = HHH.methods["contrast"].run([choice(prompt=talk)], given)
    assert found.values["picks"] == [0, 1]
    assert len(seen) == 4
    assert all("user how" in text and "assistant so" in text for text in seen)


def test_few_shots_come_from_the_constitution(settings):
    constitution = load_constitution(ROOT / "constitutions" / "harmless.yaml")
    given = tools(replace(settings, constitution=constitution, few_shots=1), good=1.0)
    HHH.methods["multiple_choice"].run([choice()], given)
    assert {text.count("<|im_start|> user") for text in given.scorer.asked} == {2}
    many = replace(settings, constitution=constitution, few_shots=99)
    with pytest.raises(ValueError, match="99 few-shots"):
        HHH.methods["multiple_choice"].longest(choice(), many)


def test_an_answer_is_as_likely_as_all_its_tokens(settings):
    """A long answer does not win for being likelier a token, nor does the prompt count."""
    item = choice((" good",), (" bad way",), prompt=(user("how good ?"),))
    run = QUESTIONS.methods["likelihood"].run
    (found,) = run([item], tools(settings, good=-1.0, bad=-0.9, way=-0.9))
    assert found.values["scores"] == pytest.approx([-1.0, -1.8])
    assert found.values["picks"] == [0]


@pytest.mark.parametrize("task", ["hhh", "reward_bench", "questions", "red_team"])
def test_items_without_room_are_named(settings, task):
    small = replace(settings, max_tokens=20)
    for method in TASKS[task].methods.values():
        with pytest.raises(ValueError, match=r"f\.jsonl, line 7: \d+ tokens .* made for 20"):
            check_lengths([choice(("a " * 30,), prompt=(user("how " * 30),))], method, small)
        check_lengths([choice()], method, settings)


def test_items_of_one_prompt_are_one_unit(settings):
    """Forty items that ask one thing ten times each: what is known of four prompts."""
    words = ("good", "good", "good", "bad")
    items = [
        choice((word,), ("so",), prompt=(user(f"how {n}"),), id_=f"{n}.{i}")
        for n, word in enumerate(words)
        for i in range(10)
    ]
    results = BY_PREFERENCE_MODEL.run(items, tools(settings, good=1.0, so=0.5))
    (accuracy,) = (m for m in HHH.measure("x", results) if m.measure == "accuracy")
    assert (accuracy.n, accuracy.units, accuracy.mean) == (40, 4, 0.75)
    assert (accuracy.low, accuracy.high) == pytest.approx((0.3006, 0.9544), abs=1e-3)  # 3 of 4
