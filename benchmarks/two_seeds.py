"""The default run over two seeds: is RL-CAI scored above base on held-out prompts?

    python benchmarks/two_seeds.py            # 2 x 10 minutes on two cores

Each seed runs in a new process with an empty cache folder, so that its time includes download and
compilation. Writes benchmarks/results/two_seeds.json and prints the README's table.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1)


def run(seed: int, folder: Path) -> dict:
    """One run with empty caches: its summary, wall-clock seconds and peak memory in GiB."""
    environment = os.environ | {"XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-m", "cai_jax.main", "--config=configs/rlaif.py"]
    command += [f"--config.seed={seed}", f"--config.workdir={folder / 'run'}"]
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    seconds = time.monotonic() - started
    summary = json.loads((folder / "run" / "report" / "summary.json").read_text(encoding="utf-8"))
    # KiB on Linux; the maximum over all child processes so far.
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"seed": seed, "seconds": round(seconds), "peak_gib": round(peak, 2), "summary": summary}


def main() -> None:
    """Runs the seeds, writes the results and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        results = [run(seed, Path(folder) / str(seed)) for seed in SEEDS]
    out = ROOT / "benchmarks" / "results" / "two_seeds.json"
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_table(results)


def print_table(results: list[dict]) -> None:
    """Prints a Markdown table with one column per seed."""

    def interval(e: dict) -> str:
        return f"{e['mean']:.2f} [{e['low']:.2f}, {e['high']:.2f}]"

    def proportion(e: dict) -> str:
        return f"{e['accuracy']:.2f} [{e['low']:.2f}, {e['high']:.2f}]"

    evaluations = [r["summary"]["evaluation"] for r in results]
    audits = [r["summary"]["feedback"]["audit"]["audit"] for r in results]
    rows = [
        ("wall-clock, empty cache", [f"{r['seconds'] / 60:.1f} min" for r in results]),
        ("peak memory", [f"{r['peak_gib']:.1f} GiB" for r in results]),
        (
            "audit of the feedback model, accuracy",
            [
                f"{a['accuracy']:.2f} [{a['accuracy_low']:.2f}, {a['accuracy_high']:.2f}]"
                for a in audits
            ],
        ),
    ]
    for kind in ("harmlessness", "helpfulness"):
        rows.append(
            (
                f"preference model on labelled {kind} pairs",
                [proportion(e["preference_model_accuracy"][kind]) for e in evaluations],
            )
        )
    for model in ("base", "sl_cai", "rl_cai"):
        for group in ("red_team", "helpful"):
            rows.append(
                (
                    f"score of {model} on {group} prompts",
                    [interval(e["models"][model][group]["score"]) for e in evaluations],
                )
            )
    rows.append(
        (
            "RL-CAI minus base, paired",
            [interval(e["paired_differences"]["rl_cai_minus_base"]["all"]) for e in evaluations],
        )
    )
    print("| | " + " | ".join(f"seed {r['seed']}" for r in results) + " |")
    print("| --- |" + " --- |" * len(results))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
