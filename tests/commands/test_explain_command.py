"""explain as people run it, on a finished run of the tiny model."""

from collections import Counter

import pytest
from commanded import command
from conftest import ROOT

from cai_jax.data.records import read_records
from cai_jax.data.rows import Sample
from cai_jax.prompts.critique_revision import parse_reply


def explain(*arguments):
    return command("constitution", "explain", *arguments)


def test_a_finished_run_is_explained(finished, tmp_path):
    folder, out = finished.workdir.path, tmp_path / "why.md"
    samples = read_records(finished.workdir.folder("evaluate") / "samples", Sample)
    usable = [row for row in samples if parse_reply(row.response, row.finished)]
    by_prompt = Counter(row.id.rsplit("/", 1)[0] for row in usable)
    one = next(row for row in usable if by_prompt[row.id.rsplit("/", 1)[0]] > 1)
    done = explain(folder, f"--reply={one.id}", "--top=2", f"--out={out}")
    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert "## Principles of critique and revision" in text
    assert "## Principles of feedback" in text
    drawn = {p.id: p.question for p in finished.data.constitution.feedback if f"| {p.id} |" in text}
    assert drawn
    assert all(f"- {name}: {question}" in text for name, question in drawn.items())
    assert f"## Reply {one.id}" in text
    moved = text[text.index("comparisons that moved it most") :]
    assert moved.count("P(first is better)") == 2


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((), ["reads one run", "WORKDIR"]),
        ((ROOT / "docs",), ["no config.json"]),
    ],
    ids=["no-run", "no-workdir"],
)
def test_mistakes_are_one_message(given, words):
    done = explain(*given)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert all(word in done.stderr for word in words)
