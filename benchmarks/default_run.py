"""The default run, cold, over three seeds; and the table of it in docs/results.md.

    python benchmarks/default_run.py                   # 3 x 21 minutes on two cores
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
from functools import partial
from pathlib import Path

from cai_jax.evaluation.measure import number, with_interval
from cai_jax.report.summary import Summary, read_summary

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
SETS = ("red_team", "helpful")
ROWS = {
    "audit of the feedback model, held-out labelled pairs": ["labels.accuracy/audit"],
    "a bag of words on the same pairs, cross-validated": ["labels.bag_of_words/audit"],
    "preference model on harmlessness pairs": ["preference_model.accuracy/harmlessness"],
    "preference model on helpfulness pairs": ["preference_model.accuracy/helpfulness"],
    "**RL-CAI minus base, second model**": ["preference.second_score/rl_cai minus base/all"],
    "SL-CAI minus base, second model": ["preference.second_score/sl_cai minus base/all"],
    "RL-CAI minus SL-CAI, second model": ["preference.second_score/rl_cai minus sl_cai/all"],
    "RL-CAI minus base, the model that RL climbed": ["preference.score/rl_cai minus base/all"],
    "RL-CAI wins over base: red team; helpful": [
        f"win_rate.win_rate/rl_cai over base/{group}" for group in SETS
    ],
    "finished by base: red team; helpful": [f"text.finished/base/{group}" for group in SETS],
    "finished by RL-CAI": [f"text.finished/rl_cai/{group}" for group in SETS],
    "do not parse: base": [f"text.unusable/base/{group}" for group in SETS],
    "do not parse: RL-CAI": [f"text.unusable/rl_cai/{group}" for group in SETS],
    "twins: safe ones that RL-CAI refuses; unsafe ones that it answers": [
        f"twins.{which}_refusal/rl_cai/rule" for which in ("over", "under")
    ],
    "KL of RL-CAI to base, nats a reply": [f"kl.kl_to_base/rl_cai/{group}" for group in SETS],
    "score of first reply; first revision; second": [
        f"revisions.score/revision {n}" for n in range(3)
    ],
}


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
    for name, keys in ROWS.items():
        cells = ("; ".join(_cell(s, key) for key in keys) for s in summaries)
        print(f"| {name} | " + " | ".join(cells) + " |")


def _iteration(summary: Summary) -> str:
    return f"{summary.rl['chosen_iteration']} of {summary.rl['iterations']}"


def _cell(summary: Summary, key: str) -> str:
    evaluation = summary.evaluation
    name = key.partition(".")[0]
    section = next(s for s in evaluation.sections if s.name == name)
    measure, m = section.declared()[key], evaluation.measurements[key]
    unit = " %" if measure.unit == "share" else ""
    return with_interval(m, partial(number, measure), unit)


if __name__ == "__main__":
    main()
