"""Nothing that users or strangers write breaks out of what commands print, log and write."""

import csv
import json
import logging
import re

import pytest
from markdown_it import MarkdownIt

from cai_jax import convert
from cai_jax.commands.front import _PublicFormatter
from cai_jax.redaction import without_secrets
from cai_jax.sweep import Result, read_sweep, write_comparison

NAME, MEASURE = "=a|b $c$\n{", "@m|$x^{$ \\"


def test_names_of_a_sweep_are_escaped(tmp_path):
    sweep = read_sweep(
        {
            **{"title": "$\\frac{", "axis": "$a|", "seeds": (0,), "unit": "$u_{$"},
            "variations": [{"name": name, "changes": {}} for name in ("base", NAME)],
            "measures": [(MEASURE, "preference.score")],
            "figure": (MEASURE,),
        },
        "odd.py",
    )
    results = [Result(name, 0, "", {MEASURE: 1.0}) for name in ("base", NAME)]
    write_comparison(sweep, results, tmp_path)
    assert "<svg" in (tmp_path / "figure.svg").read_text(encoding="utf-8")
    table = (tmp_path / "table.md").read_text(encoding="utf-8")
    rows = MarkdownIt().enable("table").parse(table)
    inline = [token.children for token in rows if token.type == "inline"]
    cells = ["".join(child.content for child in children) for children in inline]
    assert "=a|b $c$ {" in cells
    assert MEASURE in cells
    for line in table.splitlines():  # no name ends its cell or its row
        if line.startswith("|") and "paired" not in line:
            assert len(re.findall(r"(?<!\\)\|", line)) in (4, 5)
    with open(tmp_path / "results.csv", newline="", encoding="utf-8") as file:
        found = [cell for row in csv.reader(file) for cell in row]
    assert f"'{NAME}" in found
    assert f"'{MEASURE}" in found
    assert not [cell for cell in found if cell[:1] in "=+-@" and cell]


def test_a_constitution_cannot_close_its_fence(tmp_path):
    text = "name: a\n```\n# forged\n````\n`````yaml\n"
    (tmp_path / "constitution.yaml").write_text(text, encoding="utf-8")
    manifest = {"constitution": "`a\n# forged", "constitution_sha256": "ab"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    card = "\n".join(convert._constitution(tmp_path / "checkpoint"))
    tokens = MarkdownIt().parse(card)
    (fence,) = [token for token in tokens if token.type == "fence"]
    assert fence.content.rstrip("\n") == text.rstrip("\n")
    headings = [tokens[i + 1].content for i, t in enumerate(tokens) if t.type == "heading_open"]
    assert headings == ["Constitution"]


def test_a_card_names_no_local_folder(tmp_path):
    (tmp_path / "rl" / "checkpoint").mkdir(parents=True)
    assert convert._public(str(tmp_path / "rl" / "checkpoint")) == "`rl/checkpoint`"
    assert convert._public("hf:org/name") == "`hf:org/name`"


@pytest.mark.parametrize("name", ["HF_TOKEN", "CAI_LINK_TOKEN", "AWS_SECRET_ACCESS_KEY"])
def test_secrets_are_never_logged(monkeypatch, name):
    monkeypatch.setenv(name, "hf_abcdefgh")
    said = "asked https://me:hf_abcdefgh@host/simple with hf_abcdefgh, and https://u:p@host/a"
    record = logging.makeLogRecord({"msg": said})
    for shown in (without_secrets(said), _PublicFormatter("%(message)s").format(record)):
        assert shown == "asked https://***@host/simple with ***, and https://***@host/a"
