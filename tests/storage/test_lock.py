"""A folder has one owner; a dead one is told from a live one."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
from conftest import ROOT

from cai_jax.storage.lock import LOCK, TakenError, owned

# Holds a folder until its input ends.
OWNER = """
import sys
from pathlib import Path
from cai_jax.storage.lock import TakenError, owned
try:
    with owned(Path(sys.argv[1])):
        print("in", flush=True)
        sys.stdin.read()
except TakenError as error:
    print(error, flush=True)
"""


def start(folder):
    command = [sys.executable, "-c", OWNER, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, **pipes)


@pytest.mark.parametrize("pair", range(3))
def test_of_two_at_once_one_is_in_and_the_other_is_refused_by_name(tmp_path, pair):
    both = [start(tmp_path / "work") for _ in range(2)]
    said = [process.stdout.readline() for process in both]
    assert said.count("in\n") == 1
    owner = both[said.index("in\n")]
    refusal = said[1 - said.index("in\n")]
    assert refusal.startswith(f"{tmp_path / 'work'}: process {owner.pid} on {socket.gethostname()}")
    for process in both:
        process.communicate()
    assert not (tmp_path / "work").exists()  # nothing came into it


def test_a_killed_owner_is_followed_at_once(tmp_path):
    owner = start(tmp_path)
    assert owner.stdout.readline() == "in\n"
    os.kill(owner.pid, signal.SIGKILL)
    owner.communicate()
    assert (tmp_path / LOCK).exists()
    started = time.monotonic()
    with owned(tmp_path):
        assert time.monotonic() - started < 5
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


def test_an_owner_elsewhere_lives_while_it_beats(tmp_path):
    file, owner = tmp_path / LOCK, {"host": "elsewhere", "process": 7, "since": "noon"}
    stop = threading.Event()

    def beat():
        beats = 0
        while not stop.wait(0.02):
            (tmp_path / "next").write_text(json.dumps({**owner, "beats": (beats := beats + 1)}))
            (tmp_path / "next").replace(file)

    beating = threading.Thread(target=beat)
    beating.start()
    try:
        while not file.exists():
            time.sleep(0.01)
        with pytest.raises(TakenError, match="process 7 on elsewhere"), owned(tmp_path, 0.5):
            pass
    finally:
        stop.set()
        beating.join()
    with owned(tmp_path, 0.05):
        assert json.loads(file.read_text())["host"] == socket.gethostname()


def test_what_is_in_the_way_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), owned(tmp_path / "file"):
        pass
