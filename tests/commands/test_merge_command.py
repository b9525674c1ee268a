"""merge and diff as people run them, on the files of constitutions/groups/."""

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from commanded import command
from conftest import ROOT

from cai_jax.constitution.diff import ALIKE

GROUPS = ROOT / "constitutions" / "groups"
DRAFTS = [GROUPS / f"{name}.yaml" for name in ("teachers", "lawyers", "nurses")]
VOTES = f"--votes={GROUPS / 'votes.csv'}"


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
        ((*DRAFTS[:2], DRAFTS[0]), [f"{DRAFTS[0]}: {DRAFTS[0]} has the name 'teachers', too"]),
        ((*DRAFTS, "--agreement=0.9"), ["--agreement", "name their file in --votes"]),
        ((*DRAFTS, VOTES, "--agreement=1"), ["--agreement: 1 is out of reach", "below it"]),
        (
            (*DRAFTS, VOTES, "--agreement=0.99"),
            [f"{GROUPS / 'votes.csv'}: no principle of critique"],
        ),
    ],
    ids=[
        *("too-few-weights", "no-number", "no-files", "one-file-twice"),
        *("agreement-without-votes", "agreement-of-all", "agreement-of-nobody"),
    ],
)
def test_mistakes_are_one_line_and_no_file(tmp_path, given, words):
    done = workshop("merge", *given, f"--out={tmp_path / 'new' / 'out.yaml'}")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert all(word in line for word in words), line
    assert not list(tmp_path.rglob("*.*"))


def test_what_people_have_edited_is_not_replaced(tmp_path):
    """Neither the merged file, nor a file that has the name of the report, but for --overwrite."""
    out, readme = tmp_path / "merged.yaml", tmp_path / "README.md"
    readme.write_text("ours", encoding="utf-8")
    assert workshop("merge", *DRAFTS[:2], f"--out={out}").returncode == 0
    made = out.read_text(encoding="utf-8")
    out.write_text("resolved by hand", encoding="utf-8")
    for taken, held in ((out, out), (readme.with_suffix(".yaml"), readme)):
        done = workshop("merge", *DRAFTS[:2], f"--out={taken}")
        assert done.returncode == 1
        assert f"--out: {held} is there already" in done.stderr
        assert "--overwrite" in done.stderr
    assert out.read_text(encoding="utf-8") == "resolved by hand"
    assert readme.read_text(encoding="utf-8") == "ours"
    assert not readme.with_suffix(".yaml").exists()
    assert workshop("merge", *DRAFTS[:2], f"--out={out}", "--overwrite").returncode == 0
    assert out.read_text(encoding="utf-8") == made


def test_what_is_merged_is_never_replaced(tmp_path):
    """Nor the votes, nor under another name, nor if --overwrite says so."""
    drafts = [shutil.copy(draft, tmp_path) for draft in DRAFTS]
    votes = Path(shutil.copy(GROUPS / "votes.csv", tmp_path / "votes.md"))
    (tmp_path / "link.yaml").symlink_to(drafts[0])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for taken, held in (
        (drafts[0], drafts[0]),
        (tmp_path / "link.yaml", drafts[0]),
        (votes.with_suffix(".yaml"), votes),
    ):
        done = workshop("merge", *drafts, f"--votes={votes}", f"--out={taken}", "--overwrite")
        assert done.returncode == 1
        assert f"--out: {held} is read by this command; name another file" in done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("verb", ["merge", "import"])
def test_a_file_without_a_name_is_refused(verb):
    done = workshop(verb, DRAFTS[0], "--out=")
    assert (done.returncode, done.stderr) == (1, "error: --out: is empty; name a file\n")


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
