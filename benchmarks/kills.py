"""A run that is killed anywhere ends as one that nobody touched: the tiny pipeline of the tests.

    python benchmarks/kills.py --workdir=runs/kills                            # 40 times kill -9
    python benchmarks/kills.py --workdir=runs/kills --hosts=2 --kills=10       # one of two hosts
    python benchmarks/kills.py --workdir=runs/kills --kills=10 --signal=TERM   # told to end

One run goes to its end untouched. Then others are killed, each several times, at instants that are
drawn from all stages alike, and started again after each; what they end with must be the same:
checkpoints, records and all JSON to the last bit, times aside. Writes
benchmarks/results/kills.json and prints a table. It takes minutes a kill on two cores.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from absl import app, flags  # noqa: E402
from parallel.test_hosts import Host, free_address  # noqa: E402
from same_artifacts import differences  # noqa: E402
from tiny_model import write_tiny_model  # noqa: E402
from tiny_run import TINY_RUN  # noqa: E402

from cai_jax.parallel.exit_codes import PREEMPTED  # noqa: E402

WORKDIR = flags.DEFINE_string("workdir", None, "of all runs", required=True)
KILLS = flags.DEFINE_integer("kills", 40, "in all")
EACH = flags.DEFINE_integer("each", 5, "kills of one run")
HOSTS = flags.DEFINE_integer("hosts", 1, "processes of a run, which share eight devices")
SIGNAL = flags.DEFINE_enum("signal", "KILL", ["KILL", "TERM"], "that a process is sent")
SEED = flags.DEFINE_integer("seed", 0, "of the instants")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")  # a start in seconds
RESULTS = ROOT / "benchmarks" / "results" / "kills.json"


def main(_: list[str]) -> None:
    """All runs."""
    folder = Path(WORKDIR.value).absolute()
    model = folder / "model"
    if not model.exists():
        write_tiny_model(model)
    whole = folder / f"whole{HOSTS.value}"
    if not (whole / "report" / "manifest.json").exists():
        ended(start(whole, model))
    draw, rows = random.Random(SEED.value), list[dict[str, Any]]()
    while len(rows) < KILLS.value:
        work = folder / f"killed{HOSTS.value}-{SIGNAL.value}-{len(rows)}"
        shutil.rmtree(work, ignore_errors=True)
        count = min(EACH.value, KILLS.value - len(rows))
        done = [kill(work, model, *instant) for instant in instants(draw, whole, count)]
        ended(start(work, model))
        differ = differences(whole, work)
        rows += [row | {"differences": differ} for row in done]
        for row in done:
            print(row, differ, flush=True)
    counted = [row for row in rows if row["met"]]
    same = sum(not row["differences"] for row in counted)
    print(f"{same} of {len(counted)} kills left no trace")
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    found[f"{SIGNAL.value}, {HOSTS.value} hosts"] = rows
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")


def instants(draw: random.Random, whole: Path, count: int) -> list[tuple[str, float]]:
    """Stages, in their order, and seconds after each has begun: all stages are met alike."""
    times = {m.parent.name: json.loads(m.read_text())["seconds"] for m in manifests(whole)}
    order = sorted(times, key=lambda name: (whole / name / "manifest.json").stat().st_mtime)
    chosen = sorted(draw.choices(range(len(order)), k=count))
    return [(order[i], draw.uniform(0, times[order[i]])) for i in chosen]


def manifests(workdir: Path) -> list[Path]:
    """Of the finished stages."""
    return sorted(workdir.glob("[!.]*/manifest.json"))


def start(work: Path, model: Path) -> list[Host]:
    """The command, on every host."""
    settings = {**TINY_RUN, "workdir": work, "model.source": model, "resume.max_share": 1.0}
    arguments = ["-m", "cai_jax.main", f"--config={ROOT / 'configs' / 'rlaif.py'}:smoke"]
    arguments += [f"--config.{name}={value}" for name, value in settings.items()]
    log, count, address = work.with_name(f"{work.name}.log"), HOSTS.value, free_address()
    together = [f"--coordinator={address}", f"--num_hosts={count}"] if count > 1 else []
    return [
        Host(
            log.with_suffix(f".{host}.log"),
            [*arguments, *together, *([f"--host_id={host}"] if together else [])],
            8 // count,
            root=ROOT,
            cwd=ROOT,
        )
        for host in range(count)
    ]


def ended(hosts: list[Host]) -> None:
    """Waits for the end.

    Raises:
      RuntimeError: it is a bad one.
    """
    if any(host.ends(24 * 3600) for host in hosts):
        raise RuntimeError(hosts[0].said()[-3000:])


def kill(work: Path, model: Path, stage: str, delay: float) -> dict[str, Any]:
    """Starts the run, and ends it so many seconds after a stage has begun."""
    hosts = start(work, model)
    while f"{stage}: running" not in hosts[0].said() and hosts[0].process.poll() is None:
        time.sleep(0.05)  # a stage that an earlier kill came after is not run again
    time.sleep(delay)
    victim = random.Random(f"{stage}{delay}").choice(hosts)
    victim.process.send_signal(getattr(signal, f"SIG{SIGNAL.value}"))
    sent = time.monotonic()
    codes = [host.ends(120) for host in hosts]
    met = "summary: " not in hosts[0].said()  # else it had ended
    if met and SIGNAL.value == "TERM" and set(codes) != {PREEMPTED}:
        raise RuntimeError(f"exit codes {codes}: {hosts[0].said()[-3000:]}")
    seconds = round(time.monotonic() - sent, 1)
    where = {"stage": stage, "after": round(delay, 1), "met": met, "seconds": seconds}
    return where | {"host": hosts.index(victim), "codes": codes}


if __name__ == "__main__":
    app.run(main)
