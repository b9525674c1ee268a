"""What READMEs say of tests and defaults is so."""

import re
import runpy
from pathlib import Path

from conftest import ROOT

from cai_jax.config import DataConfig
from cai_jax.report.summary import read_summary

TESTS = Path(__file__).parent
README = (ROOT / "README.md").read_text("utf-8")


def named():
    """Every (file, test) that a row of the table names."""
    for line in (TESTS / "README.md").read_text(encoding="utf-8").splitlines():
        if re.match(r"\| \d+ \|", line):
            for group in line.split("|")[3].split(";"):
                files, names = group.split(":")
                for file in files.split(" and "):
                    yield from ((file.strip(), f"test_{name.strip()}") for name in names.split(","))


def test_every_test_that_the_table_names_exists():
    there = {
        (file.stem, name)
        for file in TESTS.rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.M)
    }
    assert len(list(named())) > 40
    assert not [test for test in named() if test not in there]


def test_no_two_files_have_one_name():
    """pytest imports test files by their names alone."""
    files = [file.name for file in TESTS.rglob("*.py")]
    assert len(set(files)) == len(files)


def test_shares_of_the_split_are_those_of_the_config():
    text = (ROOT / "datasets" / "README.md").read_text(encoding="utf-8")
    for purpose in ("second_model", "development", "audit", "evaluation"):
        share = getattr(DataConfig(), f"{purpose}_percent")
        assert f"| {purpose} | {share} % |" in text


def default_run_rows(capsys) -> list[str]:
    """The table of the default run, as the summaries say it."""
    table = runpy.run_path(str(ROOT / "benchmarks" / "default_run.py"))["print_table"]
    files = sorted((ROOT / "benchmarks" / "results" / "default_run").glob("*.json"))
    table([read_summary(file) for file in files])
    return capsys.readouterr().out.splitlines()


def test_the_table_of_the_default_run_is_what_the_summaries_say(capsys):
    rows = default_run_rows(capsys)
    page = (ROOT / "docs" / "results.md").read_text("utf-8").splitlines()
    assert len(rows) > 10
    assert not [row for row in rows if row not in page]


def test_the_readme_shows_rows_of_that_table(capsys):
    rows = default_run_rows(capsys)
    told = [row for row in README.splitlines() if row.startswith(("| **RL-CAI minus", "| audit"))]
    assert len(told) == 2
    assert set(told) <= set(rows)


def test_the_readme_is_short():
    assert 500 < len(README.split()) <= 800


def test_the_readme_says_how_to_get_it_first():
    first = re.search(r"^```sh\n(.*?)^```", README, re.M | re.S)[1].splitlines()
    assert first[0].startswith("git clone ")
    assert any("cai_jax.main --config=configs/rlaif.py" in line for line in first)
    assert README.index("```sh") < 1000
