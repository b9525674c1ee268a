"""Twins and evasiveness: replies that are classed, on few rows by hand; red teaming beside them."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest
from task_settings import task_settings

from cai_jax.evaluation.reply_class import CLASSES
from cai_jax.evaluation.tasks.evasiveness import EVASIVENESS
from cai_jax.evaluation.tasks.red_team import RED_TEAM
from cai_jax.evaluation.tasks.registry import TASKS
from cai_jax.evaluation.tasks.task import TaskTools, check_lengths
from cai_jax.evaluation.tasks.twins import TWINS
from cai_jax.generation.engine import Completion
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import user
from cai_jax.prompts.word_tokenizer import word_tokenizer

HELPS, REFUSES, EXPLAINS = "Take two .", "I decline .", "I decline because it would hurt him ."
ASKED = {"safe": "how are you", "unsafe": "how is he", "other": "why so", "last": "who are they"}


@dataclass
class Scripted:
    """Says what the script has for a prompt; ``cut`` replies have no end."""

    chat: ChatFormat
    script: dict[str, str]
    cut: tuple[str, ...] = ()
    keys: list = field(default_factory=list)

    def generate(self, prompts, keys, max_new_tokens, sampling, name):
        self.keys += [tuple(key.tolist()) for key in keys]
        ids = {tuple(self.chat.prompt_ids((user(prompt),))): prompt for prompt in self.script}
        return [self._said(ids[tuple(row)]) for row in prompts]

    def _said(self, prompt):
        ids = self.chat.reply_ids(self.script[prompt])
        return Completion(
            ids[:1] if prompt in self.cut else ids, np.zeros(len(ids)), prompt not in self.cut
        )


@dataclass
class Reader:
    """A model that classes replies by a function."""

    of: Callable[[str], str]
    said: list = field(default_factory=list)

    def classes(self, said):
        self.said += said
        return [self.of(reply) for _, reply in said]


@pytest.fixture(scope="module")
def chat():
    return ChatFormat(word_tokenizer([HELPS, REFUSES, EXPLAINS, *ASKED.values()]))


def tools(chat, script, cut=(), reader=None, **more):
    model = Scripted(chat, {ASKED[name]: reply for name, reply in script.items()}, cut)
    return TaskTools(task_settings(chat, **more), None, model, reply_judge=reader)


def rows(tmp_path, *found):
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in found))
    return file


def means(task, method, results):
    return {(m.measure, m.group): m.mean for m in task.measure(method, results)}


@pytest.fixture
def pairs(tmp_path):
    return TWINS.read(
        rows(
            tmp_path,
            {"safe": ASKED["safe"], "unsafe": ASKED["unsafe"], "category": "kind"},
            {"safe": ASKED["other"], "unsafe": ASKED["last"]},
        )
    )


def test_twins_by_hand(pairs, chat):
    script = {"safe": HELPS, "unsafe": EXPLAINS, "other": REFUSES, "last": HELPS}
    results = TWINS.methods["rule"].run(pairs, tools(chat, script))
    assert results[0].values["classes"] == {"safe": "engages", "unsafe": "explained"}
    assert results[0].values["replies"] == {"safe": HELPS, "unsafe": EXPLAINS}
    found = means(TWINS, "rule", results)
    expected = {"over_refusal": 0.5, "under_refusal": 0.5, "both_right": 0.5, "finished": 1}
    assert {name: found[name, "all"] for name in expected} == expected
    assert (found["both_right", "kind"], found["over_refusal", "kind"]) == (1, 0)
    (right,) = (m for m in TWINS.measure("rule", results) if m.measure == "both_right"
                and m.group == "all")  # fmt: skip
    # Wilson's interval of 1 of 2 pairs, by hand.
    assert (right.n, right.units) == (2, 2)
    assert (right.low, right.high) == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_evasiveness_by_hand(tmp_path, chat):
    items = EVASIVENESS.read(
        rows(tmp_path, *({"prompt": text, "id": name} for name, text in ASKED.items()))
    )
    script = {"safe": HELPS, "unsafe": EXPLAINS, "other": REFUSES, "last": REFUSES}
    results = EVASIVENESS.methods["rule"].run(items, tools(chat, script, cut=(ASKED["last"],)))
    assert [r.values["reply"] for r in results] == [HELPS, EXPLAINS, REFUSES, "I"]
    found = means(EVASIVENESS, "rule", results)
    assert [found[name, "all"] for name in CLASSES] == [0.25, 0.25, 0.5]  # "I" refuses nothing
    assert (found["unusable", "all"], found["finished", "all"]) == (0.25, 0.75)


def test_a_model_reads_the_same_replies_that_the_rule_reads(pairs, chat):
    reader = Reader(lambda reply: "engages")
    given = tools(chat, dict.fromkeys(ASKED, REFUSES), reader=reader)
    by_rule, by_model = (TWINS.methods[name].run(pairs, given) for name in ("rule", "model"))
    assert len(given.generator.keys) == len(set(given.generator.keys)) == 4  # sampled once
    assert [r.values["replies"] for r in by_rule] == [r.values["replies"] for r in by_model]
    assert means(TWINS, "rule", by_rule)["over_refusal", "all"] == 1
    assert means(TWINS, "model", by_model)["over_refusal", "all"] == 0
    assert means(TWINS, "model", by_model)["under_refusal", "all"] == 1
    assert reader.said == [
        (prompt, REFUSES) for pair in pairs for prompt in (pair.twins.safe, pair.twins.unsafe)
    ]


def test_red_team_counts_what_the_judge_scores_below_the_threshold(tmp_path, chat):
    items = RED_TEAM.read(rows(tmp_path, *({"prompt": text} for text in ASKED.values())))
    script = dict.fromkeys(ASKED, REFUSES) | {"safe": HELPS}
    given = tools(chat, script, cut=(ASKED["last"],), threshold=1.0)
    judged = lambda items, replies: np.array(
        [2.0 if reply == REFUSES else 0.0 for reply in replies]
    )
    results = RED_TEAM.methods["preference_model"].run(
        items, TaskTools(given.settings, None, given.generator, judged)
    )
    assert [r.values["score"] for r in results] == [0.0, 2.0, 2.0, None]
    found = means(RED_TEAM, "preference_model", results)
    assert (found["success", "all"], found["unusable", "all"]) == (0.25, 0.25)


def test_what_is_chosen_where_nothing_is_named():
    chosen = {name: [*task.chosen("policy")] for name, task in TASKS.items()}
    assert chosen["hhh"] == ["multiple_choice", "contrast"]
    assert (chosen["twins"], chosen["evasiveness"]) == (["rule"], ["rule"])
    assert chosen["red_team"] == ["preference_model"]
    assert not TASKS["reward_bench"].chosen("policy")
    assert [*TWINS.chosen("policy", ["model", "contrast"])] == ["model"]


def test_the_question_of_a_class_needs_room(pairs, chat):
    """A model that classes replies reads prompt and reply within a question."""
    settings = task_settings(chat)
    short, long_ = (TWINS.methods[name].longest(pairs[0], settings) for name in ("rule", "model"))
    assert short < long_
    room = task_settings(chat, max_tokens=long_ - 1)
    check_lengths(pairs, TWINS.methods["rule"], room)
    with pytest.raises(ValueError, match=rf"rows\.jsonl, line 1: {long_} tokens"):
        check_lengths(pairs, TWINS.methods["model"], room)


@pytest.mark.parametrize(
    ("task", "row", "words"),
    [
        (TWINS, {"safe": "a"}, "'unsafe'"),
        (TWINS, {"safe": "a", "unsafe": " "}, "'unsafe' must be a non-empty text"),
        (TWINS, {"safe": "a", "unsafe": 3}, "'unsafe'"),
        (TWINS, {"safe": "a", "unsafe": "b", "category": "all"}, "'category' is 'all'"),
        (EVASIVENESS, {"text": "a"}, "'prompt'"),
        (EVASIVENESS, {"messages": [{"role": "assistant", "content": "a"}]}, "'messages'"),
    ],
)
def test_malformed_rows_are_named(tmp_path, task, row, words):
    good = {"safe": "a", "unsafe": "b", "prompt": "a"}
    with pytest.raises(ValueError, match="line 2") as error:
        task.read(rows(tmp_path, good, row))
    assert "rows.jsonl" in str(error.value)
    assert words in str(error.value)


def test_rows_are_refused_where_there_are_none_or_two_of_one_id(tmp_path):
    with pytest.raises(ValueError, match="holds no twins"):
        TWINS.read(rows(tmp_path))
    with pytest.raises(ValueError, match="id 'x' stands twice, on line 1"):
        TWINS.read(rows(tmp_path, *[{"id": "x", "safe": "a", "unsafe": "b"}] * 2))
