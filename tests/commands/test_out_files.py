"""Files that commands write are whole; links and devices stay what they are."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

from cai_jax.commands.files import check_out, write_whole

# A command that writes its file, and then prints more than a pipe holds.
PRINTS = """
import sys
from pathlib import Path
from cai_jax.commands.files import write_whole
from cai_jax.commands.front import start
out = Path(sys.argv.pop())
start(lambda: (write_whole(out, "whole"), print("x" * 10**6)))
"""


def test_a_link_stays_a_link(tmp_path):
    (tmp_path / "far").mkdir()
    link = tmp_path / "link.json"
    link.symlink_to(tmp_path / "far" / "file.json")
    for text in ("first", "second"):
        check_out(link)
        write_whole(link, text)
        assert link.is_symlink()
        assert (tmp_path / "far" / "file.json").read_text() == text
    assert os.listdir(tmp_path / "far") == ["file.json"]


def test_a_device_stays_a_device(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    check_out(tmp_path / "pipe")
    write_whole(tmp_path / "pipe", "through")
    assert reader.communicate()[0] == "through"
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    with pytest.raises(ValueError, match="/dev/full: no space left on device; make room"):
        write_whole(Path("/dev/full"), "text")


def test_a_folder_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (tmp_path, tmp_path / "link"):
        with pytest.raises(ValueError, match=r"^--out: .* is a folder; name a file"):
            check_out(out)


def test_a_pipe_that_nobody_reads_on_is_no_failure(tmp_path):
    command = [sys.executable, "-c", PRINTS, str(tmp_path / "out.txt")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    process.stdout.close()
    assert process.wait() == 0, process.stderr.read()
    assert not process.stderr.read()
    process.stderr.close()
    assert (tmp_path / "out.txt").read_text() == "whole"
