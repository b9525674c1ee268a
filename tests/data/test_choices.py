"""Choices, questions and texts: published formats, and one clear error for what is none."""

import json
import os
from collections import Counter
from pathlib import Path

import pytest
from conftest import SHARED

from cai_jax.data.readers import read_choices, read_pairs, read_questions, read_texts
from cai_jax.prompts.messages import assistant, system, user

BIG_BENCH = Path(os.environ.get("CAI_BIG_BENCH_HHH", SHARED / "hhh_alignment"))


def lines(path, *rows):
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def task(path, *examples, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**more, "examples": examples}, indent=2), encoding="utf-8")
    return path


TWO_TURNS = (user("Hi."), assistant("Hello."), user("Help me."))


@pytest.mark.parametrize(
    ("row", "messages", "right", "wrong"),
    [
        (
            {
                "input": "Hi.\n\nAssistant:  Hello.\n\nHuman: Help me.",
                "target_scores": {"b ": 0, "a": 1},
            },
            TWO_TURNS,
            ("a",),
            ("b",),
        ),
        (
            {"input": "Hi", "target_scores": {"x": 0.5, "y": 2, "z": 2, "w": -1}},
            (user("Hi"),),
            ("y", "z"),
            ("x", "w"),
        ),
        (
            {
                "prompt": "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Help me.\n\nAssistant:",
                "corrects": ["a"],
                "incorrects": [" b", "c"],
            },
            TWO_TURNS,
            ("a",),
            ("b", "c"),
        ),
        (
            {"prompt": "Say\n\nHuman: x", "chosen": "a", "rejected": "b"},
            (user("Say\n\nHuman: x"),),
            ("a",),
            ("b",),
        ),
        (
            {"prompt": "Hi", "chosen": ["a"], "rejected": ["b", "c", "d"]},
            (user("Hi"),),
            ("a",),
            ("b", "c", "d"),
        ),
        (
            {
                "messages": [
                    {"role": "system", "content": "Be kind."},
                    {"role": "user", "content": "Hi"},
                ],
                "chosen": "a",
                "rejected": ["b"],
            },
            (system("Be kind."), user("Hi")),
            ("a",),
            ("b",),
        ),
        (
            {
                "chosen": "\n\nHuman: Hi\n\nAssistant: a",
                "rejected": "\n\nHuman: Hi\n\nAssistant: b",
            },
            (user("Hi"),),
            ("a",),
            ("b",),
        ),
    ],
)
def test_formats(tmp_path, row, messages, right, wrong):
    (choice,) = read_choices(lines(tmp_path / "d.jsonl", row))
    assert (choice.messages, choice.right, choice.wrong) == (messages, right, wrong)
    assert choice.options == (*right, *wrong)
    (same,) = read_choices(task(tmp_path / "t.json", row))
    assert (same.messages, same.options) == (messages, choice.options)


PAIR = {"input": "Hi", "target_scores": {"a": 1, "b": 0}}
SAID = {"role": "assistant", "content": "a"}
PAIR_OF_TURNS = {
    "chosen": [{"role": "user", "content": "Hi"}, SAID],
    "rejected": [{"role": "user", "content": "Hi"}, SAID | {"content": " b"}],
}


def asked(talk, right, wrong, letter=" (B)"):
    """A row as the paper's file of comparisons has them."""
    options = (right, wrong) if letter == " (A)" else (wrong, right)
    marked = "".join(f" ({n}) [[[{text}]]]\n" for n, text in zip("AB", options, strict=True))
    return {
        "prompt": f"\n\nRead this talk:{talk}\n\nWhich reply is best? Options:\n{marked}\nIt is:",
        "corrects": [letter],
        "incorrects": [" (A)" if letter == " (B)" else " (B)"],
        "text_correct": f"{talk}\n\nAssistant: {right}",
        "text_incorrect": f"{talk}\n\nAssistant: {wrong}",
    }


@pytest.mark.parametrize("letter", [" (A)", " (B)"])
def test_the_papers_comparisons_are_of_their_dialogues(tmp_path, letter):
    talk = "\n\nHuman: Hi.\n\nAssistant:  Hello.\n\nHuman: Help me."
    file = lines(
        tmp_path / "438.jsonl",
        asked("\n\nHuman: Lend me a saw?", "Gladly.", "No.", letter),
        asked(talk, "First: rest.\n\nThen walk.", "Go away.", letter),
    )
    one, two = read_choices(file)
    assert (one.messages, one.options) == ((user("Lend me a saw?"),), ("Gladly.", "No."))
    assert (two.messages, two.right) == (TWO_TURNS, ("First: rest.\n\nThen walk.",))
    assert [q.right for q in read_questions(file)] == [(letter,)] * 2  # by its letters


@pytest.mark.parametrize(
    "row",
    [
        PAIR_OF_TURNS,
        PAIR_OF_TURNS | {"prompt": "Hi"},
        {"prompt": [{"role": "user", "content": "Hi"}], "chosen": [SAID], "rejected": "b"},
        {"prompt": [{"role": "user", "content": "Hi"}], "chosen": "a", "rejected": "b"},
        {"prompt": "Hi", "chosen": ["a", "a"], "rejected": ["b", "b "]},
    ],
)
def test_replies_may_be_turns(tmp_path, row):
    file = lines(tmp_path / "d.jsonl", row)
    (choice,) = read_choices(file)
    assert (choice.messages, choice.options) == ((user("Hi"),), ("a", "b"))
    if choice.row.fields["chosen"] != ["a", "a"]:
        (pair,) = read_pairs(file)
        assert (pair.messages, pair.chosen, pair.rejected) == ((user("Hi"),), "a", "b")


def test_choices_that_nobody_can_win_are_left_out_and_counted(tmp_path, caplog):
    same = {"prompt": "Hi", "chosen": "a", "rejected": ["a "]}
    silent = {"prompt": "Hi", "chosen": " ", "rejected": "b"}
    left = {"prompt": "Hi", "chosen": "a", "rejected": ["", "a", "b"]}  # two wrong ones
    file = lines(tmp_path / "d.jsonl", PAIR, same, silent, left)
    with caplog.at_level("WARNING", "cai_jax"):
        found = read_choices(file)
    assert [choice.options for choice in found] == [("a", "b"), ("a", "", "b")]
    assert "d.jsonl: 2 of 4 choices are left out" in caplog.text
    assert "line 2" in caplog.text
    with pytest.raises(ValueError, match=r"d\.jsonl: holds no choices that can be won"):
        read_choices(lines(tmp_path / "d.jsonl", same))


def test_categories_are_of_the_row_or_of_its_task(tmp_path):
    rows = [PAIR | {"category": "honest"}, PAIR | {"subset": "alpacaeval-easy"}, PAIR]
    found = read_choices(task(tmp_path / "t.json", *rows, name="Harms", canary="x"))
    assert [c.category for c in found] == ["honest", "alpacaeval-easy", "Harms"]
    assert [c.id for c in found] == ["item-1", "item-2", "item-3"]
    assert read_choices(lines(tmp_path / "d.jsonl", PAIR))[0].category == ""


def test_a_folder_is_a_task_in_parts(tmp_path):
    task(tmp_path / "harmless" / "task.json", PAIR, PAIR, name="Harms")
    task(tmp_path / "honest" / "task.json", PAIR, name="Honesty")
    (tmp_path / "task.json").write_text('{"name": "hhh_alignment"}')  # of all parts, no items
    found = read_choices(tmp_path)
    ids = ["harmless/item-1", "harmless/item-2", "honest/item-1"]
    assert [c.id for c in found] == ids
    assert [c.category for c in found] == ["Harms", "Harms", "Honesty"]
    assert [c.id for c in read_choices(tmp_path / "honest")] == ["item-1"]


def test_items_of_a_json_file_know_their_lines(tmp_path):
    odd = PAIR | {"comment": 'not yet: "examples": [1, 2]', "tags": [[], [1]]}
    file = task(tmp_path / "t.json", odd, PAIR, {"input": "Hi"}, keywords=["json", "zero-shot"])
    text = file.read_text().splitlines()
    with pytest.raises(ValueError, match="write a choice as one of") as error:
        read_choices(file)
    line = max(i for i, row in enumerate(text, start=1) if row == "    {")
    assert f"t.json, line {line}: " in str(error.value)
    alone = tmp_path / "list.json"
    alone.write_text(json.dumps([PAIR, PAIR]))  # a list, on one line
    assert [(c.id, c.row.line) for c in read_choices(alone)] == [("item-1", 1), ("item-2", 1)]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"input": "Hi", "target_scores": {"a": 1}}, ["1 right and 0 wrong"]),
        ({"input": "Hi", "target_scores": {"a": 1, "b": 1}}, ["2 right and 0 wrong"]),
        ({"input": "Hi", "target_scores": {}}, ["0 right and 0 wrong"]),
        ({"input": "Hi", "target_scores": ["a"]}, ["'target_scores'", "['a']"]),
        ({"input": "Hi", "target_scores": {"a": "1", "b": "0"}}, ["'target_scores'", "numbers"]),
        ({"input": " ", "target_scores": {"a": 1, "b": 0}}, ["'input'", "non-empty"]),
        ({"input": "Hi\n\nAssistant: no", "target_scores": {"a": 1, "b": 0}}, ["'input'", "user"]),
        ({"prompt": "Hi", "corrects": [], "incorrects": ["b"]}, ["0 right and 1 wrong"]),
        (
            {"prompt": "Which?\n(A) [[[a]]]\n(B) [[[b]]]", "corrects": "(A)", "incorrects": " (B)"},
            ["letters", "--task=questions"],
        ),
        ({"prompt": "Hi", "corrects": ["B"], "incorrects": ["A", "C"]}, ["--task=questions"]),
        (PAIR_OF_TURNS | {"chosen": [{"role": "user", "content": "Hi"}]}, ["'chosen'", "turn"]),
        (PAIR_OF_TURNS | {"rejected": [{"role": "x"}, SAID]}, ["rejected[0]", "'role'"]),
        ({"prompt": [SAID], "chosen": "a", "rejected": "b"}, ["'prompt'", "'assistant'"]),
        (PAIR | {"category": "all"}, ["'category'", "'all'", "rename"]),
        ({"prompt": "Hi", "corrects": ["a"], "incorrects": 3}, ["'incorrects'", "3"]),
        ({"prompt": "Hi", "chosen": "a", "rejected": ["b", 3]}, ["'rejected'", "3"]),
        ({"prompt": 5, "chosen": "a", "rejected": ["b"]}, ["'prompt'", "5"]),
        ({"text": "Hi"}, ["'text'", "'target_scores'"]),
    ],
)
def test_bad_rows_are_named(tmp_path, row, words):
    files = {
        lines(tmp_path / "d.jsonl", PAIR, row): "2",
        task(tmp_path / "t.json", PAIR, row): r"\d+",
    }
    for file, line in files.items():
        with pytest.raises(ValueError, match=rf"{file.name}, line {line}: ") as error:
            read_choices(file)
        assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.json", "{}", ["'examples'", "list"]),
        ("a.json", '{"examples": {}}', ["'examples'", "list"]),
        ("a.json", '{"examples": [', ["not JSON", "list of objects"]),
        ("a.json", '{"examples": [\n3]}', ["line 2", "found int"]),
        ("a.json", '{"examples": []}', ["holds no choices"]),
        ("a.jsonl", "", ["holds no choices"]),
        ("a.jsonl", "[]", ["line 1", "found list"]),
        ("a.jsonl", '{"a": 1} x', ["line 1", "not JSON"]),
    ],
)
def test_bad_files_are_named(tmp_path, name, text, words):
    (tmp_path / name).write_text(text)
    with pytest.raises(ValueError, match=name) as error:
        read_choices(tmp_path / name)
    assert all(word in str(error.value) for word in words), error.value


def test_a_file_that_is_not_there_is_named(tmp_path):
    for name in ("none.json", "none.jsonl", "none.txt"):
        with pytest.raises(ValueError, match=f"{name}: no such file"):
            (read_texts if name.endswith("txt") else read_choices)(tmp_path / name)
    with pytest.raises(ValueError, match="no such file"):
        read_choices(tmp_path)  # a folder without task.json


def test_questions_are_kept_as_they_stand(tmp_path):
    row = {
        "prompt": "\n\nHuman: x\n\n(A) yes\nThe answer is:",
        "corrects": [" (B)"],
        "incorrects": [" (A)"],
    }
    (question,) = read_questions(lines(tmp_path / "q.jsonl", row))
    assert question.messages == (user(row["prompt"]),)
    assert question.options == (" (B)", " (A)")
    with pytest.raises(ValueError, match=r"line 1: field 'corrects'"):
        read_questions(lines(tmp_path / "q.jsonl", {"prompt": "x", "incorrects": [" (A)"]}))


def test_texts(tmp_path):
    found = read_texts(
        lines(tmp_path / "t.jsonl", {"text": " a\n", "category": "c"}, {"text": "b"})
    )
    assert [(t.text, t.category) for t in found] == [(" a\n", "c"), ("b", "")]
    plain = tmp_path / "t.txt"
    plain.write_bytes("\ufeffüber\n".encode())
    assert [t.text for t in read_texts(plain)] == ["über\n"]
    plain.write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"t\.txt, line 1: not UTF-8"):
        read_texts(plain)
    plain.write_text(" \n")
    with pytest.raises(ValueError, match=r"t\.txt, line 1: field 'text' must be a non-empty"):
        read_texts(plain)


@pytest.mark.skipif(
    not BIG_BENCH.is_dir(),
    reason="set CAI_BIG_BENCH_HHH to hhh_alignment/ of PyPI's sdist bigbench 1.0.0",
)
def test_big_bench_is_read_as_it_is():
    found = read_choices(BIG_BENCH)
    assert Counter(c.category for c in found) == {
        "Honesty": 61, "Helpfulness": 59, "Harms": 58, "Other": 43,
    }  # fmt: skip
    assert all(len(c.right) == len(c.wrong) == 1 for c in found)
    assert Counter(len(c.messages) for c in found) == {1: 180, 3: 40, 5: 1}


@pytest.mark.skipif(not SHARED.is_dir(), reason="no ../shared/data")
def test_the_papers_files_are_read_as_they_are():
    harm = read_questions(SHARED / "cai_paper" / "HarmfulVsEthical.jsonl")
    assert len(harm) == 254
    assert {q.options for q in harm} == {(" (A)", " (B)"), (" (B)", " (A)")}
    comparisons = read_choices(SHARED / "cai_paper" / "RLMadisonFewShotPrompts.json")
    assert [len(c.messages) for c in comparisons] == [1] * 5
