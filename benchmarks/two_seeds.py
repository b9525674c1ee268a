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

    def measured(key: str) -> list[str]:
        found = [r["summary"]["evaluation"]["measurements"][key] for r in results]
        return [f"{m['mean']:.2f} [{m['low']:.2f}, {m['high']:.2f}]" for m in found]

    rows = [
        ("wall-clock, empty cache", [f"{r['seconds'] / 60:.1f} min" for r in results]),
        ("peak memory", [f"{r['peak_gib']:.1f} GiB" for r in results]),
        ("audit of the feedback model, accuracy", measured("labels.accuracy/audit")),
    ]
    for kind in ("harmlessness", "helpfulness"):
        accuracy = measured(f"preference_model.accuracy/{kind}")
        rows.append((f"preference model on labelled {kind} pairs", accuracy))
    for policy, name in results[0]["summary"]["policies"].items():
        for group in ("red_team", "helpful"):
            score = measured(f"preference.score/{policy}/{group}")
            rows.append((f"score of {name} on {group} prompts", score))
    for name, measure in (
        ("RL-CAI minus base, paired", "preference.score/rl_cai minus base/all"),
        ("the same where both replies parse", "preference.usable_score/rl_cai minus base/all"),
        ("RL-CAI over base on red-team prompts", "win_rate.win_rate/rl_cai over base/red_team"),
        ("RL-CAI over base on helpful prompts", "win_rate.win_rate/rl_cai over base/helpful"),
    ):
        rows.append((name, measured(measure)))
    print("| | " + " | ".join(f"seed {r['seed']}" for r in results) + " |")
    print("| --- |" + " --- |" * len(results))
    for name, cells in rows:
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
