"""merge and diff as people run them, on the files of constitutions/groups/."""

import random
import re
import subprocess
import sys

import pytest
from commanded import command
from conftest import ROOT

from cai_jax.constitution.diff import ALIKE

GROUPS = ROOT / "constitutions" / "groups"
DRAFTS = [GROUPS / f"{name}.yaml" for name in ("teachers", "lawyers", "nurses")]


def workshop(verb, *arguments):
    return command("constitution", verb, *arguments)


def test_the_script_writes_the_votes():
    made = subprocess.run(
        [sys.executable, GROUPS / "simulate_votes.py"], capture_output=True, check=True
    )
    assert made.stdout == (GROUPS / "votes.csv").read_bytes()


def test_the_command_writes_the_merged_files_whatever_the_order(tmp_path):
    """Of the drafts, and of the votes."""
    header, *rows = (GROUPS / "votes.csv").read_text(encoding="utf-8").splitlines()
    random.Random(0).shuffle(rows)
    votes, out = tmp_path / "votes.csv", tmp_path / "merged.yaml"
    votes.write_text("\n".join([header, *rows]), encoding="utf-8")
    done = workshop("merge", *DRAFTS, f"--votes={votes}", f"--out={out}")
    assert done.returncode == 0, done.stderr
    for name in ("merged.yaml", "merged.md"):
        assert (tmp_path / name).read_bytes() == (GROUPS / name).read_bytes()
    (conflict,) = re.findall("conflict.*", done.stdout)
    assert "leaves-the-choice and says-what-to-do" in conflict


def test_weights_go_with_their_files(tmp_path):
    out = tmp_path / "two.yaml"
    done = workshop("merge", *DRAFTS[:2], "--weights=2,0.5", f"--out={out}")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "two.md").read_text(encoding="utf-8")
    assert "| `hint-first` | Henrik Aalto | teachers | 2 |" in text
    assert "| `deadlines` | Noor Rahman | lawyers | 0.5 |" in text
    assert "| `own-mistakes` | Rosa Quispe, Noor Rahman | teachers, lawyers | 2.5 |" in text


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ((*DRAFTS, "--weights=1,2"), ["--weights", "1,2 for 3 files"]),
        ((*DRAFTS, "--weights=1,x,2"), ["--weights", "'x'", "such as 2,1"]),
        ((), ["no files to merge"]),
    ],
    ids=["too-few-weights", "no-number", "no-files"],
)
def test_mistakes_are_one_line_and_no_file(tmp_path, given, words):
    done = workshop("merge", *given, f"--out={tmp_path / 'new' / 'out.yaml'}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
    assert not list(tmp_path.rglob("*.*"))


def test_diff_shows_what_became_of_a_draft():
    done = workshop("diff", DRAFTS[2], GROUPS / "merged.yaml")
    assert done.returncode == 0, done.stderr
    assert "  - says-what-to-do" in done.stdout
    assert "  ~ keeps-secrets" in done.stdout
    assert "author: Amina [-Diallo-] {+Diallo, Henrik Aalto+}" in done.stdout


def test_diff_of_equal_files_says_so():
    done = workshop("diff", DRAFTS[0], DRAFTS[0])
    assert (done.returncode, done.stdout) == (0, f"{ALIKE}\n")


def test_the_readme_tells_the_example_as_it_is():
    readme = (GROUPS / "README.md").read_text(encoding="utf-8")
    report = (GROUPS / "merged.md").read_text(encoding="utf-8")
    assert "826 votes" in readme
    assert "60 participants cast 826 votes" in report
    assert "2 groups: A 37, B 23" in report
    assert "two, of 37 and 23" in readme
    assert "28 of 47: 60%" in report
    assert "4 of 20: 20%" in report
    for id_ in re.findall(r"`([a-z]+(?:-[a-z]+)+)`", readme):
        assert f"`{id_}`" in report, id_
