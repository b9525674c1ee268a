"""Several hosts, which here are processes of this machine with devices of their own."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import ROOT
from host_numbers import numbers
from tiny_run import TINY_RUN

from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Revision, Sample, TrainingPair
from cai_jax.models.io.load import load_update
from cai_jax.parallel.exit_codes import HOST_LOST, PREEMPTED
from cai_jax.parallel.hosts import (
    TOKEN_FILE,
    TOKEN_VARIABLE,
    HostError,
    check_flags,
    together,
)
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.stage import open_run

RECORDS = {
    "sl_data/responses": Revision,
    "sl_data/revisions": Revision,
    "sl_data/helpful": Revision,
    "feedback/comparisons": Comparison,
    "pm_train/harmlessness": TrainingPair,
    "pm_train/helpfulness": TrainingPair,
    "evaluate/samples": Sample,
}


def free_address() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{one.getsockname()[1]}"


class Host:
    """A process that is one host, its output in a file."""

    token = {TOKEN_VARIABLE: "known to these hosts alone"}

    def __init__(self, log: Path, arguments: list[str], devices: int, root: Path, cwd: Path):
        environment = os.environ | {
            "XLA_FLAGS": os.environ["XLA_FLAGS"].replace("count=8", f"count={devices}"),
            "PYTHONPATH": str(root),
            "TQDM_MININTERVAL": "0.1",
            **self.token,
        }
        self.log = log
        with log.open("w") as out:
            self.process = subprocess.Popen(
                [sys.executable, *arguments],
                stdout=out,
                stderr=subprocess.STDOUT,
                cwd=cwd,
                env=environment,
            )

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def wait_until_it_says(self, text: str, seconds: float = 900) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.said():
            # It may say it, and end, between the two looks.
            assert self.process.poll() is None or text in self.said(), self.said()[-3000:]
            assert time.monotonic() < deadline, self.said()[-3000:]
            time.sleep(0.05)

    def ends(self, seconds: float = 900) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            self.process.kill()

    def error(self) -> str:
        """The error that it ended with: from its one line that begins so."""
        text = "\n" + self.said()
        assert len(re.findall(r"^error: ", text, re.M)) == 1, text[-3000:]
        assert "Traceback" not in text
        return text[text.index("\nerror: ") + 1 :]


def start_main(
    folder: Path,
    *,
    host: int,
    hosts: int,
    address: str,
    devices: int = 4,
    root: Path = ROOT,
    cwd: Path = ROOT,
    **changes,
) -> Host:
    """``python -m cai_jax.main`` as one host of a tiny run."""
    arguments = ["-m", "cai_jax.main", f"--config={ROOT / 'configs' / 'rlaif.py'}:smoke"]
    arguments += [f"--coordinator={address}", f"--num_hosts={hosts}", f"--host_id={host}"]
    arguments += [f"--start_timeout={changes.pop('start_timeout', 300)}"]
    arguments += [f"--config.{name}={value}" for name, value in {**TINY_RUN, **changes}.items()]
    folder.mkdir(parents=True, exist_ok=True)
    return Host(folder / f"log{host}.txt", arguments, devices, root, cwd)


def test_numbers_do_not_depend_on_the_number_of_hosts(tmp_path, model_folder):
    """Losses of five steps and sampled tokens: 2 processes of 4 devices against this one's 8."""
    address = free_address()
    script = str(ROOT / "tests" / "host_numbers.py")
    both = [
        Host(
            tmp_path / f"log{host}.txt",
            [script, address, "2", str(host), str(model_folder), str(tmp_path / f"{host}.npz")],
            devices=4,
            root=ROOT,
            cwd=ROOT,
        )
        for host in range(2)
    ]
    alone = numbers(model_folder, 2, 2, 2)
    for host, process in enumerate(both):
        assert process.ends() == 0, process.said()[-3000:]
        found = np.load(tmp_path / f"{host}.npz")
        assert set(found) == set(alone)
        np.testing.assert_array_equal(found["tokens"], alone["tokens"])
        for name in set(alone) - {"tokens"}:
            np.testing.assert_allclose(found[name], alone[name], rtol=1e-4, atol=1e-6, err_msg=name)
    assert len(alone["sft"]) == len(alone["preference"]) == len(alone["ppo_policy"]) / 2 == 5
    assert alone["sft"][4, 0] < alone["sft"][0, 0]  # the losses
    assert alone["preference"][4, 0] < alone["preference"][0, 0]


@pytest.fixture(scope="module")
def resumed(tmp_path_factory, model_folder) -> dict:
    """A run on two hosts: one is killed in a step of PPO, and the same command goes on."""
    folder = tmp_path_factory.mktemp("hosts")
    about = {"workdir": folder / "work", "model.source": model_folder}
    about["stage_store"] = folder / "stages"
    address = free_address()
    first = [
        start_main(folder / "first", host=h, hosts=2, address=address, **about) for h in range(2)
    ]
    first[0].wait_until_it_says("rl: 1 of 2, ")
    first[1].process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code = first[0].ends(600)
    seconds = time.monotonic() - killed
    left = sorted(p.name for p in (folder / "work").iterdir())
    address = free_address()
    again = [
        start_main(folder / "again", host=h, hosts=2, address=address, **about) for h in range(2)
    ]
    return {
        "workdir": folder / "work",
        "store": folder / "stages",
        "code": code,
        "seconds": seconds,
        "left": left,
        "first": first,
        "codes": [host.ends() for host in again],
        "again": again,
    }


@pytest.mark.slow
def test_a_killed_host_is_named_by_the_other(resumed):
    assert resumed["code"] == HOST_LOST
    print(f"reported after {resumed['seconds']:.2f} s")
    assert resumed["seconds"] < 120
    error = resumed["first"][0].error()
    assert re.search(r"host 1 \(.+\) was lost during stage rl: .+ start the same command", error)


@pytest.mark.slow
def test_the_same_command_goes_on_after_a_killed_host(resumed):
    assert resumed["codes"] == [0, 0], resumed["again"][0].said()[-3000:]
    said = resumed["again"][0].said()
    for stage in ("sl_data", "sl_train", "feedback", "pm_train"):
        assert stage in resumed["left"]
        assert f"{stage}: up to date" in said
        assert list(resumed["store"].glob(f"{stage}-*/manifest.json"))
    assert "rl" not in resumed["left"]
    assert "rl: running" in said


@pytest.mark.slow
def test_only_the_main_host_speaks(resumed):
    other = resumed["again"][1].said()
    assert "up to date" not in other
    assert not re.search(r"\d of \d+, .* left", other)


@pytest.mark.slow
def test_artifacts_do_not_depend_on_the_number_of_hosts(resumed, finished, monkeypatch):
    monkeypatch.chdir(ROOT)
    two = open_run(replace(finished.config, workdir=str(resumed["workdir"])))
    folders = [run.workdir.path for run in (two, finished)]
    for name, kind in RECORDS.items():
        rows, alone = (read_records(folder / name, kind) for folder in folders)
        assert [row.id for row in rows] == [row.id for row in alone]
        for row, other in zip(rows, alone, strict=True):
            for key, value in vars(row).items():
                wanted = getattr(other, key)
                if key == "target_ppm":
                    np.testing.assert_allclose(value, wanted, atol=10)
                elif isinstance(value, float) or key.startswith(("shown", "group_")):
                    np.testing.assert_allclose(value, wanted, rtol=1e-4, atol=1e-5)
                else:
                    assert value == wanted, key
    histories = [json.loads((folder / "rl" / "history.json").read_text()) for folder in folders]
    for there, here in zip(*histories, strict=True):
        for name in there:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-4, atol=1e-5, err_msg=name)
    for stage in stages_of(finished.config):
        there, here = (run.workdir.manifest(stage.name) for run in (two, finished))
        assert there["tokens"] == here["tokens"]
    for stage in ("sl_train", "pm_train", "rl"):  # written by two hosts, read by one
        trees = (
            load_update(run.models.source(str(run.models.checkpoint(stage))), run.models.mesh)
            for run in (two, finished)
        )
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), *trees)


def test_a_host_that_does_not_come_is_named(tmp_path):
    address = free_address()
    about = {"hosts": 3, "address": address, "start_timeout": 20, "workdir": tmp_path / "work"}
    came = [start_main(tmp_path, host=host, **about) for host in (0, 2)]
    for host in came:
        assert host.ends(300) == HOST_LOST
        assert "host 1 of 3 did not come within 20 s" in host.error()
    assert not (tmp_path / "work").exists()


def test_hosts_that_differ_are_refused_by_name(tmp_path):
    """Another flag, another line of code and another version of a package on host 1."""
    root = tmp_path / "other"
    shutil.copytree(ROOT / "cai_jax", root / "cai_jax")
    with (root / "cai_jax" / "rl" / "ppo.py").open("a") as file:
        file.write("# one more line\n")
    (root / "optax-0.0.1.dist-info").mkdir()
    about = "Metadata-Version: 2.1\nName: optax\nVersion: 0.0.1\n"
    (root / "optax-0.0.1.dist-info" / "METADATA").write_text(about)
    address, workdir = free_address(), tmp_path / "work"
    both = [
        start_main(tmp_path, host=0, hosts=2, address=address, workdir=workdir),
        start_main(
            tmp_path,
            host=1,
            hosts=2,
            address=address,
            workdir=workdir,
            root=root,
            cwd=root,
            **{"rl.kl_coef": 0.7},
        ),
    ]
    for host in both:
        assert host.ends(300) == 1
        error = host.error()
        assert re.search(r"config.rl.kl_coef: 0\.\d+ on host 0 .+, 0.7 on host 1", error)
        assert re.search(r"optax: .+ on host 0 .+, 0.0.1 on host 1", error)
        assert re.search(r"code cai_jax/rl/ppo.py: \w+ on host 0 .+, \w+ on host 1", error)
        assert error.count(" on host 1 ") == 3
    assert not workdir.exists()


def disk(folder: Path, host: int) -> Path:
    """A folder that only one host works in, with what a run reads."""
    cwd = folder / f"disk{host}"
    cwd.mkdir()
    for name in ("constitutions", "datasets"):
        (cwd / name).symlink_to(ROOT / name)
    return cwd


def test_a_workdir_that_is_not_shared_is_refused(tmp_path, model_folder):
    address, both = free_address(), []
    for host in range(2):
        cwd = disk(tmp_path, host)
        about = {"workdir": "work", "model.source": model_folder}
        both.append(start_main(tmp_path, host=host, hosts=2, address=address, cwd=cwd, **about))
    for host in both:
        assert host.ends(600) == 1
        assert re.search(r"work: host 1 \(.+\) cannot see .+ mount", host.error())
    assert not (tmp_path / "disk0" / "work").exists()


STEPS = """
import sys, time, jax, numpy as np
from pathlib import Path
from cai_jax.parallel import hosts
from cai_jax.parallel.mesh import make_mesh, put_batch

with hosts.together(False, sys.argv[1], 3, int(sys.argv[2]), 60, {}, Path()):
    hosts.note("stage stepping")
    mesh = make_mesh(data=3, fsdp=1)
    rows, total = put_batch(np.ones(3, np.float32), mesh), jax.jit(lambda rows: rows.sum())
    while True:
        print("step", hosts.fetch(total(rows)), flush=True)
        time.sleep(0.01)
"""


@pytest.mark.parametrize("lost", [0, 1])
def test_all_that_are_left_name_the_lost_host(tmp_path, lost):
    """Also host 0, although JAX's coordination service dies with it."""
    address = free_address()
    three = [
        Host(tmp_path / f"log{n}.txt", ["-c", STEPS, address, str(n)], 1, root=ROOT, cwd=ROOT)
        for n in range(3)
    ]
    for host in three:
        host.wait_until_it_says("step 3.0", 300)
    three.pop(lost).process.send_signal(signal.SIGKILL)
    for host in three:
        assert host.ends(300) == HOST_LOST
        sentence = rf"host {lost} \(.+\) was lost during stage stepping: .+ start the same command"
        assert re.search(sentence, host.error())


LEAVING = """
import sys, time, jax, numpy as np
from pathlib import Path
from cai_jax.parallel import hosts, preemption
from cai_jax.parallel.mesh import make_mesh, put_batch

together = hosts.together(False, sys.argv[1], 2, int(sys.argv[2]), 60, {}, Path())
with together, preemption.leaving_when_told(["go", "on"]):
    mesh = make_mesh(data=2, fsdp=1)
    rows, total = put_batch(np.ones(2, np.float32), mesh), jax.jit(lambda rows: rows.sum())
    for step in range(10**6):
        print("step", step, hosts.fetch(total(rows)), flush=True)
        if preemption.should_leave():
            print("left after", step, flush=True)
            preemption.leave()
        time.sleep(0.01)
"""


@pytest.mark.parametrize("told", [0, 1])
def test_all_hosts_leave_at_the_same_step_when_one_is_told_to_end(tmp_path, told):
    address = free_address()
    both = [
        Host(tmp_path / f"log{n}.txt", ["-c", LEAVING, address, str(n)], 1, root=ROOT, cwd=ROOT)
        for n in range(2)
    ]
    for host in both:
        host.wait_until_it_says("step 3 ", 300)
    both[told].process.send_signal(signal.SIGTERM)
    sent = time.monotonic()
    assert [host.ends(60) for host in both] == [PREEMPTED] * 2, both[0].said()[-3000:]
    assert time.monotonic() - sent < 30
    steps = [re.findall(r"^left after (\d+)$", host.said(), re.M) for host in both]
    assert len(steps[0]) == 1
    assert steps[0] == steps[1]
    who = ["SIGTERM", "another host"][told]
    assert f"told to end by {who}; what is finished is kept, go on with:\n  go on" in both[0].said()
    assert not any("Traceback" in host.said() for host in both)


@pytest.mark.parametrize("fails", [0, 1])
def test_a_host_that_fails_alone_during_a_step_is_told_as_the_cause(tmp_path, fails):
    """On the others collectives break meanwhile, with errors that tell nothing."""
    address, raised = free_address(), f"if sys.argv[2] == '{fails}': raise OSError('disk full')"
    script = STEPS.replace("time.sleep(0.01)", raised)
    three = [
        Host(tmp_path / f"log{n}.txt", ["-c", script, address, str(n)], 1, root=ROOT, cwd=ROOT)
        for n in range(3)
    ]
    for number, host in enumerate(three):
        assert host.ends(300) == 1
        cause = "disk full" if number == fails else rf"host {fails} \(.+\) stopped: disk full"
        assert re.match(rf"error: {cause}", host.error())


MEET = """
import sys, time
from pathlib import Path
from cai_jax.parallel import hosts

address, host, workdir = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
with hosts.together(False, address, 2, host, 60, {}, workdir):
"""
EXCHANGES = (
    MEET
    + """
    hosts.check_shared(workdir)
    hosts.check_same("what was read", {"digest": "a"}, "Read the same.")
    assert hosts.from_main("a text", str, f"{host}" + "ü" * 100_000) == "0" + "ü" * 100_000
    print("in step", flush=True)
    while not hosts.from_main("whether to go on", bool, (workdir / "go").exists()):
        time.sleep(0.1)
    LAST
"""
)


def two_that_exchange(folder: Path, address: str, last: str) -> list[Host]:
    arguments = ["-c", EXCHANGES.replace("LAST", last), address]
    return [
        Host(folder / f"log{n}.txt", [*arguments, str(n), str(folder / "work")], 1, ROOT, ROOT)
        for n in range(2)
    ]


def see(folder: Path, place: str, *workdirs: Path) -> list[Host]:
    """Hosts that check that these are one and the same folder."""
    script = f"{MEET}    hosts.check_shared(workdir)"
    arguments, folder = ["-c", script, free_address()], folder / place
    folder.mkdir()
    return [
        Host(folder / f"log{n}.txt", [*arguments, str(n), str(workdir)], 1, ROOT, ROOT)
        for n, workdir in enumerate(workdirs)
    ]


def test_a_workdir_on_a_read_only_disk_is_shared_where_all_see_what_it_holds(
    tmp_path, on_read_only_disk
):
    for name in ("rl", "report"):
        (tmp_path / "made" / name).mkdir(parents=True)
    place = on_read_only_disk(tmp_path / "made")
    for host in see(tmp_path, "one", place, place):
        assert host.ends(300) == 0, host.said()[-3000:]
    (tmp_path / "made" / "rl").rmdir()
    for host in see(tmp_path, "two", place, tmp_path / "made"):
        assert host.ends(300) == 1
        assert re.search(r"host 1 \(.+\) cannot see what host 0 \(.+\) finds", host.error())


@pytest.mark.slow
def test_a_finished_run_of_several_hosts_on_a_read_only_disk_is_up_to_date(
    resumed, tmp_path, on_read_only_disk, model_folder
):
    about = {"workdir": on_read_only_disk(resumed["workdir"]), "model.source": model_folder}
    about["stage_store"] = resumed["store"]
    address = free_address()
    both = [start_main(tmp_path, host=h, hosts=2, address=address, **about) for h in range(2)]
    assert [host.ends() for host in both] == [0, 0], both[0].said()[-3000:]
    assert re.search(r"stages: \d+ done, 0 left", both[0].said())


def test_strangers_at_the_port_do_not_end_a_run(tmp_path, monkeypatch):
    """Once the hosts have met, JAX's coordination service listens there; the token is a file's."""
    monkeypatch.setattr(Host, "token", {})
    address = free_address()
    both = two_that_exchange(tmp_path, address, "hosts.sync('the end')")
    for host in both:
        host.wait_until_it_says("in step", 300)
    port = int(address.rsplit(":", 1)[1])
    for what in (b"", b"\xff\x00garbage\n", b"GET / HTTP/1.1\r\n\r\n", b"x" * 100_000_000):
        with socket.create_connection(("127.0.0.1", port)) as stranger, suppress(OSError):
            stranger.sendall(what)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", port))  # no address of the run
    (tmp_path / "work" / "go").touch()
    assert [host.ends(300) for host in both] == [0, 0], both[0].said()[-3000:]
    assert {path.name for path in (tmp_path / "work").iterdir()} == {"go", TOKEN_FILE}


OUT_OF_STEP = {
    "host 0 is late": (
        "host or time.sleep(60); hosts.sync('lunch', 1)",
        r"lunch: waited 1 s for host 0 \(.+\)",
    ),
    "host 1 is late": (
        "host and time.sleep(60); hosts.sync('lunch', 1)",
        r"lunch: waited 1 s for host 1 \(.+\)",
    ),
    "elsewhere": (
        "hosts.sync(f'lunch {host}')",
        r"host 0 \(.+\) is at 'lunch 0', host 1 \(.+\) at 'lunch 1'",
    ),
    "of another kind": (
        "hosts.from_main('lunch', int, 'soup')",
        r"lunch, of host 0 \(.+\): what it sent is no message \(the line: .+ integer.*close JAX's",
    ),
    "too long": (
        "hosts.from_main('lunch', str, 'soup' * 300_000)",
        r"lunch, of host 0 \(.+\): it sent a line of more than \d+ bytes; close JAX's",
    ),
    "a number as a text": (
        "hosts.check_same('lunch', {'dish': 7}, 'Eat the same.')",
        r"lunch, of host 0 \(.+\): what it sent is no message \(dish: .+ string\); close JAX's",
    ),
    "different": (
        "hosts.check_same('lunch', {'dish': str(host)}, 'Eat the same.')",
        r"lunch differs between hosts:\n  dish: 0 on host 0 .+, 1 on host 1 .+\n  Eat the same\.",
    ),
}


@pytest.mark.parametrize("how", OUT_OF_STEP)
def test_a_host_that_is_late_or_out_of_step_is_named_by_all(tmp_path, how):
    last, error = OUT_OF_STEP[how]
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "go").touch()
    for host in two_that_exchange(tmp_path, free_address(), last):
        assert host.ends(300) == 1
        assert re.search(error, host.error())


def test_a_host_that_fails_alone_ends_the_others(tmp_path, model_folder):
    address, both = free_address(), []
    for host in range(2):
        cwd = disk(tmp_path, host)
        about = {"workdir": tmp_path / "work", "model.source": "tiny"}
        both.append(start_main(tmp_path, host=host, hosts=2, address=address, cwd=cwd, **about))
    (tmp_path / "disk0" / "tiny").symlink_to(model_folder)
    assert [host.ends(300) for host in both] == [1, 1]
    assert "error: model source 'tiny': no such file" in both[1].error()
    assert re.search(r"host 1 \(.+\) stopped: model source 'tiny': no such", both[0].error())


def test_an_environment_that_knows_no_hosts():
    with (
        pytest.raises(HostError, match="--multihost: JAX finds no TPU VM"),
        together(True, "", 0, -1, 5, {}, Path()),
    ):
        pass


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((True, "a:1", 2, 0), "--multihost and --coordinator"),
        ((False, "a:1", 0, 0), "without --num_hosts"),
        ((False, "", 2, -1), "without --coordinator and --host_id"),
        ((False, "a", 2, 0), "HOST:PORT"),
        ((False, "a:1", 2, 2), "from 0 to 1"),
    ],
)
def test_flags_that_do_not_say_who_takes_part(flags, words):
    with pytest.raises(HostError, match=words):
        check_flags(*flags)
