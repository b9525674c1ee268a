"""The console script: every module that can be run is a verb, and no other is imported."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from commanded import command
from conftest import ROOT

from cai_jax.commands import verbs

PROGRAM = "import sys; from cai_jax.commands.verbs import main; sys.argv[0] = 'cai-jax'; main()"


def cai_jax(*arguments: str) -> subprocess.CompletedProcess:
    """The console script, of this checkout."""
    command = [sys.executable, "-c", PROGRAM, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_command_is_a_verb():
    assert set(verbs.verbs()) == {
        *(
            "run",
            "chat",
            "compile",
            "constitution",
            "convert",
            "cycles",
            "evaluate",
            "generate",
            "init",
            "inspect",
            "microworld",
        ),
        *("red_team", "report", "score", "sweep"),
    }


def test_alone_it_says_what_each_verb_does():
    said = cai_jax().stdout
    assert said == cai_jax("--help").stdout
    lines = {line.split()[0]: line for line in said.splitlines()[2:]}
    assert set(lines) == set(verbs.verbs())
    assert lines["generate"].endswith("Samples completions of prompts.")


@pytest.mark.parametrize(("verb", "nearest"), [("scor", "score"), ("sweeep", "sweep")])
def test_an_unknown_verb_is_one_line_with_the_nearest(verb, nearest):
    done = cai_jax(verb, "--model=x")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {verb}: no such verb")
    assert nearest in line


def test_a_verb_is_the_module_with_its_flags_alone():
    """score has no --temperature; were generate imported beside it, the flag would be known."""
    module = [sys.executable, "-m", "cai_jax.score", "--temperature=1"]
    wanted = subprocess.run(module, cwd=ROOT, capture_output=True, text=True, check=False)
    done = cai_jax("score", "--temperature=1")
    last = lambda done: done.stderr.splitlines()[-1]
    assert done.returncode == wanted.returncode == 1
    assert last(done) == last(wanted) == "error: Unknown command line flag 'temperature'"


@pytest.mark.parametrize(
    ("verb", "known"),
    [
        (["constitution", "lint"], ["--model", "--pairs", "--method"]),
        (["constitution", "test"], ["--model", "--method", "--out"]),
        (["constitution", "merge"], ["--out", "--[no]overwrite", "--votes", "--weights"]),
        (["generate"], ["--model", "--data", "--out", "--temperature", "--batch_size"]),
        (["main"], ["--config", "--[no]multihost"]),
    ],
    ids=lambda words: " ".join(words),
)
def test_help_lists_all_flags_and_is_no_failure(verb, known):
    done = command(*verb, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    flags = done.stdout.partition("\nflags:\n")[2]
    assert [flag for flag in known if not re.search(rf"^{re.escape(flag)}\b", flags, re.M)] == []
    assert "--flagfile" not in flags


def test_run_reads_a_config():
    done = cai_jax("run", "--config=configs/rlaif.py:smoke", "--config.rl.gamma=2")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: config.rl.gamma: ")


def test_an_installed_package_has_the_script():
    (found,) = re.findall(r'"cai-jax=(.+)"', (ROOT / "setup.py").read_text(encoding="utf-8"))
    assert EntryPoint("cai-jax", found, "console_scripts").load() is verbs.main
