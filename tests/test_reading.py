"""Files that are broken or hostile, and the layer that reads them; benchmarks/fuzz.py has more."""

import gzip
import json
import os
from runpy import run_path

import pytest
from conftest import ROOT
from minimal_constitution import MINIMAL

from cai_jax.constitution.schema import load_constitution
from cai_jax.data.readers import read_prompts
from cai_jax.reading import DEPTH, FileError, compose_yaml, read_json, read_lines, read_text

FUZZ = run_path(str(ROOT / "benchmarks" / "fuzz.py"))


@pytest.mark.parametrize("kind", FUZZ["KINDS"])
def test_changed_files_are_read_or_refused_in_one_sentence(tmp_path, kind):
    counts, bad = FUZZ["fuzz"](kind, 40, 0, tmp_path)
    assert not bad
    assert counts["refused"] > 0


def test_every_encoding_has_one_answer_for_lines_and_whole_files(tmp_path):
    """So the run and every small command, which have one reader, say the same."""
    path, text = tmp_path / "a.jsonl", '{"prompt": "café"}'
    for content in (text.encode(), b"\xef\xbb\xbf" + text.encode(), f"\n \r\n{text}\n\n".encode()):
        path.write_bytes(content)
        assert [p.messages[0].text for p in read_prompts(path)] == ["café"]
    for content, words in (
        (text.encode("latin-1"), "line 1: not UTF-8"),
        (text.encode("utf-16"), "UTF-16"),
        (b'{"a": 1}\n{"a": "\xe9"}', "line 2: not UTF-8"),
    ):
        path.write_bytes(content)
        for read in (lambda: list(read_lines(path)), lambda: read_text(path)):
            with pytest.raises(FileError, match=words) as error:
                read()
            assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[" * 100_000, "nested"),
        ("[" * (DEPTH + 1) + "]" * (DEPTH + 1), "nested"),
        ('{"a": 1, "a": 2}', "'a' appears twice"),
        ('{"a": 1e999}', "no finite number"),
        ("[NaN]", "no finite number"),
        ('["\\ud83d"]', "half of a surrogate pair"),
        ("9" * 5000, "not JSON"),
        (f"[{10**30}]", "more than 64 bits"),
        ('{"a": 1}\n{', "line 2: not JSON"),
        ("", "not JSON"),
    ],
)
def test_json_that_nothing_may_rely_on_is_refused(tmp_path, content, words):
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FileError, match=words) as error:
        read_json(path)
    assert str(path) in str(error.value)
    assert len(str(error.value)) < 3000


def test_json_as_deep_as_the_limit_is_read(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("[" * (DEPTH - 1) + "]" * (DEPTH - 1), encoding="utf-8")
    assert isinstance(read_json(path), list)


def test_a_pipe_and_a_folder_are_refused_without_waiting(tmp_path):
    pipe = tmp_path / "a.jsonl"
    os.mkfifo(pipe)
    for path in (pipe, tmp_path):
        with pytest.raises(FileError, match="no regular file"):
            read_text(path)
    with pytest.raises(FileError, match="no such file"):
        read_text(tmp_path / "b")
    with pytest.raises(FileError, match="no regular file"):
        list(read_lines(pipe))


def test_what_gzip_unpacks_to_is_limited(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    row = json.dumps({"prompt": "a b c"}) + "\n"
    path.write_bytes(gzip.compress(row.encode() * 1000))  # small, so it may shrink as it likes
    assert sum(1 for _ in read_lines(path)) == 1000
    path.write_bytes(gzip.compress(row.encode() * 200_000))
    with pytest.raises(FileError, match="unpacks to more than"):
        list(read_lines(path))
    path.write_bytes(gzip.compress(b"\n" * 200_000))
    with pytest.raises(FileError, match="blank lines"):
        list(read_lines(path))


@pytest.mark.parametrize("odd", ["[" * 3000, "{a: " * 3000, "- " * 3000, "&a [*a", "!!int x y: z"])
def test_yaml_of_any_depth_ends(tmp_path, odd):
    path = tmp_path / "a.yaml"
    path.write_text(MINIMAL + f"description2: {odd}\n", encoding="utf-8")
    with pytest.raises(FileError, match=str(path)):
        compose_yaml(path)
    with pytest.raises(ValueError, match=str(path)):
        load_constitution(path)


QUOTE = "quote texts with colons, brackets or quotes in them"


@pytest.mark.parametrize(
    ("content", "line", "remedy"),
    [
        ("a: b\n# c\nd: \x07e\n", 3, "has the character U+0007; take it out"),
        ("a: b\nc: \0\n", 2, "has the character U+0000; take it out"),
        ("a: b\n\tc: d\n", 2, "write spaces in place of the tab"),
        ("a: b\nc: @d\n", 2, "quote the text that begins with it"),
        ("a: b\nc: *d\n", 2, "quote the text that begins with '*', or put '&' and the name befo"),
        ("a: b\nc: **d**\n", 2, "quote the text that begins with '*' or '&'"),
        ("a: &b c\nd: &b e\n", 2, "quote the text that begins with '&', or give it another name"),
        ("a: b\n---\nc: d\n", 2, "take out the '---' before it, or make two files of them"),
        ("a: b\n...\nc: d\n", 3, "take out the '...' or '%' on a line above it"),
        ("%YAML 3.0\n---\na: b\n", 1, "take out the line that begins with '%'"),
        (f"a: b\nc: {'[' * 70}\n", 2, "write it flatter"),
        ("a: b\nc: !d!e f\n", 2, "quote the text that begins with '!'"),
        ("a: b\nc: 'd\ne: f\n", 2, "close the quote"),
        (
            'a: b\nc: "\\d"\n',
            2,
            "write two backslashes for one, or quote the text by single quotes",
        ),
        ('a: b\nc: "\\U99999999"\n', 2, "write it anew"),
        ("a: [b\nc: d\n", 2, "close the bracket, or quote the text that begins with it"),
        ("a: b\nc: |d\n", 2, "begin the text on the next line, or quote it"),
        ("a: b\nc: d: e\n", 2, QUOTE),
        ("a: b\nc: 'don't'\n", 2, QUOTE),
    ],
)
def test_each_fault_of_yaml_has_its_line_and_its_remedy(tmp_path, content, line, remedy):
    path = tmp_path / "a.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(FileError) as error:
        compose_yaml(path)
    assert str(error.value).startswith(f"{path}, line {line}: not valid YAML: ")
    assert remedy in str(error.value)
    assert remedy == QUOTE or QUOTE not in str(error.value)
