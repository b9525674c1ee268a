"""Readers: every format, and one answer for odd files."""

import gzip
import hashlib
import json

import numpy as np
import pytest
from conftest import ROOT, SHARED
from hypothesis import assume, given
from hypothesis import strategies as st

from cai_jax.data import readers
from cai_jax.data.jsonl import jsonl_rows
from cai_jax.data.readers import (
    LabelledPair,
    Prompt,
    Twins,
    read_pairs,
    read_prompts,
    read_twins,
)
from cai_jax.data.splits import split_key
from cai_jax.prompts.messages import assistant, system, user

MARKED = "Go on.\n\nAssistant: yes\n\nHuman: no"


def write(path, *rows):
    """A .jsonl file of objects, or of lines as they are."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def attempt(read, path):
    """What a reader finds, and what it says if it refuses the file."""
    try:
        return read(path), ""
    except ValueError as error:
        return [], str(error)


@pytest.mark.parametrize("name", ["red_team_prompts", "helpful_prompts"])
def test_shipped_prompts(name):
    prompts = read_prompts(ROOT / "datasets" / f"{name}.jsonl")
    assert len(prompts) >= 420
    assert sum(len(p.messages) > 2 for p in prompts) >= 40  # with several turns
    assert len({p.messages for p in prompts}) == len(prompts)


@pytest.mark.parametrize("name", ["harmlessness_pairs", "helpfulness_pairs", "evasiveness_pairs"])
def test_shipped_pairs_are_balanced_in_length(name):
    pairs = read_pairs(ROOT / "datasets" / f"{name}.jsonl")
    words = np.array([[len(p.chosen.split()), len(p.rejected.split())] for p in pairs])
    assert abs(words[:, 0].mean() - words[:, 1].mean()) < 1
    assert 0.4 < np.mean(words[:, 0] > words[:, 1]) < 0.6


TURNS = [
    {"role": "system", "content": "be kind"},
    {"role": "user", "content": "one"},
    {"role": "assistant", "content": MARKED},
    {"role": "user", "content": " three\n"},
]
READ_TURNS = (system("be kind"), user("one"), assistant(MARKED), user("three"))


def test_prompts_in_every_format(tmp_path):
    path = write(
        tmp_path / "a.jsonl",
        {"id": "x", "prompt": f" {MARKED} "},
        {"messages": TURNS, "tags": ["a"], "group": " g "},
        {"prompt": "\n\nHuman: hi\n\nAssistant:"},
    )
    assert read_prompts(path) == [
        Prompt("x", (user(MARKED),)),  # a mark inside a text opens no turn
        Prompt("line-2", READ_TURNS, "g", ("a",)),
        Prompt("line-3", (user("Human: hi\n\nAssistant:"),)),
    ]


def test_pairs_in_every_format(tmp_path):
    sides = {"chosen": " yes\n", "rejected": MARKED}
    talk = "\n\nHuman: Hi\n\nAssistant: Hello\n\nHuman: Why?\n\nAssistant:"
    path = tmp_path / "pairs.jsonl.gz"
    rows = [
        {"prompt": MARKED, **sides},
        {"id": "m", "messages": TURNS, **sides},
        {"chosen": f"{talk} Because.", "rejected": f"{talk} No idea.", "group": "g"},
        {"chosen": f"{talk}\n\nAssistant: Still.", "rejected": talk},  # silent, then not; silent
    ]
    with gzip.open(path, "wt") as file:
        file.writelines(f"{json.dumps(row)}\n" for row in rows)
    turns = (user("Hi"), assistant("Hello"), user("Why?"))
    assert read_pairs(path) == [
        LabelledPair("line-1", (user(MARKED),), "yes", MARKED),
        LabelledPair("m", READ_TURNS, "yes", MARKED),
        LabelledPair("line-3", turns, "Because.", "No idea.", "g"),
        LabelledPair("line-4", turns, "Still.", ""),
    ]


def test_twins(tmp_path):
    path = write(tmp_path / "a.jsonl", {"safe": " a\n", "unsafe": MARKED, "tags": ["hate"]})
    assert read_twins(path) == [Twins("line-1", (user("a"),), (user(MARKED),))]
    for row, words in (({"safe": "a"}, "'safe', 'unsafe'"), ({"safe": "a", "unsafe": " "}, "non-")):
        with pytest.raises(ValueError, match=rf"a\.jsonl, line 1: .*{words}"):
            read_twins(write(path, row))


def test_a_format_is_a_function_and_an_entry(tmp_path, monkeypatch):
    shout = lambda row: Prompt(row.id, (user(row.text("shout").upper()),))
    monkeypatch.setitem(readers.PROMPT_FORMATS, ("shout",), shout)
    path = write(tmp_path / "a.jsonl", {"shout": "hi"}, {"prompt": "ho"})
    assert [p.messages[0].text for p in read_prompts(path)] == ["HI", "ho"]


def test_hh_rlhf_file_is_read_as_ever():
    path = SHARED / "hh_harmless_base_test_half.jsonl.gz"
    if not path.exists():
        pytest.skip("../shared/data is not here")
    pairs = read_pairs(path)
    assert len(pairs) == 1156
    assert sum(not p.chosen or not p.rejected for p in pairs) < 10  # silence is allowed, and rare
    digest = hashlib.sha256()
    for p in pairs:
        turns = [(m.role, m.text) for m in p.messages]
        digest.update(json.dumps([p.id, turns, p.chosen, p.rejected]).encode())
    # What version 0.3.0 read, but for five dialogues in which the assistant has two turns together.
    assert digest.hexdigest().startswith("1d7f0cac290138bf75edc31b4b6d97d7")


WORDS = st.text(st.sampled_from("abH:\n ")).map(str.strip).filter(lambda text: text)


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1), WORDS, WORDS)
def test_hh_rlhf_turns_come_back(tmp_path_factory, exchanges, chosen, rejected):
    """Whatever is said in turns, as long as it holds no mark."""
    *earlier, (asked, _) = exchanges
    talk = "".join(f"\n\nHuman: {one}\n\nAssistant: {two}" for one, two in earlier)
    talk += f"\n\nHuman: {asked}\n\nAssistant: "
    path = tmp_path_factory.mktemp("hh") / "a.jsonl"
    write(path, {"chosen": talk + chosen, "rejected": talk + rejected})
    turns = [turn for one, two in earlier for turn in (user(one), assistant(two))]
    expected = LabelledPair("line-1", (*turns, user(asked)), chosen, rejected)
    assume(chosen != rejected)  # or nothing is to be learned
    assert read_pairs(path) == [expected]


BAD = [
    ("", ["holds no prompts"]),
    ('{"prompt": "a"}\n{"prompt": 3}\n', ["line 2", "'prompt'", "3"]),
    ('\n\n{"prompt": "a"\n', ["line 3", "not JSON"]),
    ("[1]\n", ["line 1", "JSON object"]),
    ('{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', ["'x'", "twice"]),
    ('{"prompt": "  "}\n', ["line 1", "non-empty"]),
    ('{"promt": "a"}\n', ["line 1", "'promt'", "'prompt'; or 'messages'"]),
    ('{"prompt": "a", "messages": []}\n', ["line 1", "'messages', 'prompt'"]),
    ('{"messages": []}\n', ["line 1", "'messages'", "list of messages"]),
    ('{"messages": "a"}\n', ["line 1", "'messages'", "list of messages"]),
    ('{"messages": ["a"]}\n', ["line 1", "messages[0]", "'role'"]),
    ('{"messages": [{"role": "tool", "content": "a"}]}\n', ["messages[0]", "tool"]),
    ('{"messages": [{"role": ["user"], "content": "a"}]}\n', ["messages[0]", "'role'"]),
    ('{"messages": [{"role": "user", "content": [1]}]}\n', ["messages[0]", "'content'"]),
    (json.dumps({"messages": TURNS[1:3]}), ["line 1", "'assistant'", "user's turn"]),
    (json.dumps({"messages": TURNS[1:] + TURNS}), ["line 1", "system", "first"]),
    (json.dumps({"messages": TURNS[:1]}), ["line 1", "'system'", "user's turn"]),
    ('{"prompt": "a", "group": 3}\n', ["line 1", "'group'", "3"]),
    ('{"prompt": "a", "group": " "}\n', ["line 1", "'group'", "non-empty"]),
    ('{"prompt": "a", "tags": [3]}\n', ["line 1", "'tags'", "texts"]),
    ('{"prompt": "half \\ud83d"}\n', ["line 1", "surrogate"]),
]


@pytest.mark.parametrize(("content", "words"), BAD)
def test_bad_prompt_files(tmp_path, content, words):
    path = tmp_path / "prompts.jsonl"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"prompts\.jsonl") as error:
        read_prompts(path)
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"prompt": "a", "chosen": "b"}, ["'chosen', 'prompt'", "'prompt', 'chosen', 'rejected'"]),
        ({"prompt": "a", "chosen": "b", "rejected": ""}, ["'rejected'", "non-empty"]),
        ({"chosen": "b", "rejected": "c"}, ["'chosen'", "'Assistant:' turn"]),
        ({"chosen": "\n\nAssistant: b", "rejected": "\n\nAssistant: c"}, ["'Human:' turn"]),
        (
            {"chosen": "\n\nHuman:\n\nAssistant: b", "rejected": "\n\nHuman:\n\nAssistant: c"},
            ["'Human:' turn"],
        ),
    ],
)
def test_bad_pairs(tmp_path, row, words):
    path = write(tmp_path / "pairs.jsonl", {"prompt": "a", "chosen": "b", "rejected": "c"}, row)
    with pytest.raises(ValueError, match=r"pairs\.jsonl, line 2: ") as error:
        read_pairs(path)
    for word in words:
        assert word in str(error.value)


def test_truncated_and_missing_files_are_named(tmp_path):
    path = tmp_path / "pairs.jsonl.gz"
    whole = gzip.compress(b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n' * 50)
    for content in (whole[:-12], whole[:20] + b"\0" * 20 + whole[40:], b"no gzip"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"pairs\.jsonl\.gz.*truncated"):
            read_pairs(path)
    with pytest.raises(ValueError, match=r"none\.jsonl: no such file"):
        read_pairs(tmp_path / "none.jsonl")


def test_odd_lines_and_encodings_get_one_answer(tmp_path):
    path = tmp_path / "odd.jsonl"
    path.write_bytes('\ufeff{"a": "ä\u2028"}\r\n \t\n\n{"a": "b"}'.encode())
    assert [(row.line, row.fields["a"]) for row in jsonl_rows(path)] == [(1, "ä\u2028"), (4, "b")]
    path.write_bytes(b'{"a": "b"}\n' + '{"a": "café"}'.encode("latin-1"))
    with pytest.raises(ValueError, match=r"odd\.jsonl, line 2: not UTF-8"):
        list(jsonl_rows(path))


LINES = st.one_of(
    st.binary(max_size=20),
    st.builds(
        lambda row: json.dumps(row).encode(),
        st.dictionaries(
            st.sampled_from(["id", "prompt", "messages", "chosen", "rejected"]),
            st.recursive(
                st.none() | st.integers() | st.text() | st.just("\n\nHuman: a\n\nAssistant: b"),
                lambda inner: st.lists(
                    inner | st.fixed_dictionaries({"role": inner, "content": inner}), max_size=3
                ),
            ),
        ),
    ),
)


@given(st.lists(LINES, max_size=3))
def test_a_file_is_read_or_refused_by_name(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "a.jsonl"
    path.write_bytes(b"\n".join(lines))
    for read in (read_prompts, read_pairs):
        items, said = attempt(read, path)
        assert (str(path) in said) != bool(items)
        assert all(split_key(item) or not item.messages[0].text for item in items)


def test_the_shared_cases_are_read_or_refused_by_name():
    cases = sorted((SHARED / "cases").glob("*.jsonl"))
    if not cases:
        pytest.skip("../shared/data is not here")
    for path in cases:
        for read in (read_prompts, read_pairs):
            items, said = attempt(read, path)
            assert (path.name in said) != bool(items)


@pytest.mark.parametrize(
    "ids", [(1, "1"), ("a", "a"), (1.0, "1.0"), (True, "True"), ("line-2", None), (None, "line-1")]
)
def test_rows_of_one_id_are_told_with_both_lines(tmp_path, ids):
    """However they write it, or do not: a row without one is named by its line."""
    file = tmp_path / "prompts.jsonl"
    rows = [{"prompt": f"say {n}"} | ({} if i is None else {"id": i}) for n, i in enumerate(ids)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ValueError, match=rf"{file}, line 2: id '.*' stands twice, on line 1 too"):
        read_prompts(file)
