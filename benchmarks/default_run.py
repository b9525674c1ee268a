"""The default run, cold, over three seeds; and the README's table of it.

    python benchmarks/default_run.py                   # 3 x 12 minutes on two cores
    python benchmarks/default_run.py SUMMARY.json ...  # the table of runs that there are

Each seed runs in a new process with an empty cache folder, so that its time includes download and
compilation. Writes benchmarks/results/default_run/SEED.json, the summaries, and prints the table.
"""

import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cai_jax.evaluation.measure import number
from cai_jax.report.summary import Summary, read_summary

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
ROWS = (
    ("audit of the feedback model, held-out labelled pairs", ("labels.accuracy/audit",)),
    ("a bag of words on the same pairs, cross-validated", ("labels.bag_of_words/audit",)),
    ("preference model on harmlessness pairs", ("preference_model.accuracy/harmlessness",)),
    ("preference model on helpfulness pairs", ("preference_model.accuracy/helpfulness",)),
    ("**RL-CAI minus base, second model**", ("preference.second_score/rl_cai minus base/all",)),
    ("SL-CAI minus base, second model", ("preference.second_score/sl_cai minus base/all",)),
    ("RL-CAI minus base, the model that RL climbed", ("preference.score/rl_cai minus base/all",)),
    ("replies of RL-CAI win over base's, red team", ("win_rate.win_rate/rl_cai over base/red_team",)),
    ("the same, helpful", ("win_rate.win_rate/rl_cai over base/helpful",)),
    ("finished by base: red team, helpful", ("text.finished/base/red_team", "text.finished/base/helpful")),
    ("finished by RL-CAI", ("text.finished/rl_cai/red_team", "text.finished/rl_cai/helpful")),
    ("do not parse: base", ("text.unusable/base/red_team", "text.unusable/base/helpful")),
    ("do not parse: RL-CAI", ("text.unusable/rl_cai/red_team", "text.unusable/rl_cai/helpful")),
    ("KL of RL-CAI to base, nats a reply", ("kl.kl_to_base/rl_cai/red_team", "kl.kl_to_base/rl_cai/helpful")),
    ("score of first reply, first and second revision", tuple(f"revisions.score/revision {n}" for n in range(3))),
)


def run(seed: int, folder: Path) -> Path:
    """One run with empty caches; prints its seconds and peak memory, and returns its summary."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "cai_jax.main", "--config=configs/rlaif.py"]
    command += [f"--config.seed={seed}", f"--config.workdir={folder / 'run'}"]
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    minutes = (time.monotonic() - started) / 60
    # KiB on Linux; the maximum over all child processes so far.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    print(f"seed {seed}: {minutes:.1f} min wall-clock, {peak:.1f} GiB at most so far")
    out = ROOT / "benchmarks" / "results" / "default_run" / f"{seed}.json"
    out.parent.mkdir(exist_ok=True)
    return Path(shutil.copy(folder / "run" / "report" / "summary.json", out))


def main() -> None:
    """Runs the seeds where no summaries are given, and prints the table."""
    files = [Path(name) for name in sys.argv[1:]]
    if not files:
        with tempfile.TemporaryDirectory() as folder:
            files = [run(seed, Path(folder) / str(seed)) for seed in SEEDS]
    print_table([read_summary(file) for file in files])


def print_table(summaries: list[Summary]) -> None:
    """Prints a Markdown table with one column a seed; shares are in percent."""
    print("| | " + " | ".join(f"seed {s.seed}" for s in summaries) + " |")
    print("| --- |" + " --- |" * len(summaries))
    print("| iteration of RL that was chosen | " + " | ".join(map(_iteration, summaries)) + " |")
    for name, keys in ROWS:
        cells = ("; ".join(_cell(s, key) for key in keys) for s in summaries)
        print(f"| {name} | " + " | ".join(cells) + " |")


def _iteration(summary: Summary) -> str:
    return f"{summary.rl['chosen_iteration']} of {summary.rl['iterations']}"


def _cell(summary: Summary, key: str) -> str:
    evaluation = summary.evaluation
    name = key.partition(".")[0]
    section = next(s for s in evaluation.sections if s.name == name)
    measure, m = section.declared()[key], evaluation.measurements[key]
    told = number(measure, m.mean) + (" %" if measure.unit == "share" else "")
    return told if m.low is None else f"{told} [{number(measure, m.low)}, {number(measure, m.high)}]"


if __name__ == "__main__":
    main()
