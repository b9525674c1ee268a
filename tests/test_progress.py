"""What a log says meanwhile: lines that can be read, and nothing of what libraries tell."""

import os
import re
import signal
import subprocess
import sys

import pytest

# What tqdm reads of the environment is not of these tests.
ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith("TQDM_")}
LOG = "import logging, sys; logging.basicConfig(level=20, stream=sys.stdout, format='%(message)s')"


def ended(program: str, code: int = 0) -> subprocess.CompletedProcess:
    """A process of Python whose output is no terminal."""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    return done


@pytest.mark.parametrize(
    ("total", "line"),
    [(4, r"fit: [123] of 4, .*row.*, \d\d:\d\d left, loss=1.5"), (None, r"fit: \d of \?, .*row.*")],
)
def test_a_log_gets_whole_lines_with_rate_and_time_left(total, line):
    program = f"""
{LOG}
from cai_jax.progress import progress
with progress({total}, "fit", "row") as bar:
    for _ in range(4):
        bar.set_postfix({{"loss": "1.5"}}, refresh=False)
        bar.update()
        bar.refresh()
"""
    done = ended(program)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert len(lines) == (3 if total else 4)  # nothing of the beginning, nor of a known end
    assert all(re.fullmatch(line, said) for said in lines)


@pytest.mark.parametrize("first", ["tqdm", "logging"])
def test_lines_are_half_a_minute_apart_whoever_imports_tqdm_first(first):
    """Libraries import it as well, and it reads its settings then."""
    program = f"""
import {first}
{LOG}
import time
from cai_jax.progress import progress
with progress(300, "fit", "row") as bar:
    for _ in range(300):
        time.sleep(0.002)
        bar.set_postfix({{"loss": "1.5"}}, refresh=False)
        bar.update()
"""
    assert ended(program).stdout == ""


def test_tensorflow_starts_in_silence_and_its_errors_are_shown():
    program = (
        "import os; from cai_jax import tf; tf.tf; os.write(2, b'after\\n')\n"
        "with tf._without_information():\n"
        "    os.write(2, b'I0000 00:00:17.1 port.cc:153] oneDNN\\nE0000 00:00:17.1 no disk\\n')\n"
    )
    done = ended(program)
    assert done.stderr == "after\nE0000 00:00:17.1 no disk\n"
    assert done.stdout == ""


def test_the_last_words_of_a_process_that_is_aborted_are_shown():
    program = (
        "import os; from cai_jax import tf\n"
        "with tf._without_information():\n"
        "    os.write(2, b'F0000 00:00:17.1 no AVX\\n'); os.abort()\n"
    )
    assert "F0000 00:00:17.1 no AVX\n" in ended(program, -signal.SIGABRT).stderr
