"""Steps of TRL's trainers, one each time that a line comes in; run by the virtual environment of
``make.sh``. What comes out is JSON lines: versions, then the seconds of each step.

    python benchmarks/peers/trl_steps.py grpo MODEL_FOLDER SETTINGS_JSON
"""

import json
import random
import sys
import tempfile
import time
from typing import Any

import torch
import transformers
import trl
from transformers import TrainerCallback

from datasets import Dataset

STEPS = 10_000  # more than are asked for


def say(**found: Any) -> None:
    """A line for the benchmark."""
    print(json.dumps(found), file=sys.__stdout__, flush=True)


class OnDemand(TrainerCallback):
    """Waits before every step, and tells how long it took."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        if not sys.stdin.readline():
            sys.exit()
        self.started = time.perf_counter()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        say(seconds=time.perf_counter() - self.started)


def common(folder: str, dtype: str) -> dict[str, Any]:
    """Settings of both trainers."""
    return {
        "output_dir": folder,
        "use_cpu": True,
        "bf16": dtype == "autocast",
        "max_steps": STEPS,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "gradient_checkpointing": False,
        "learning_rate": 1e-6,
    }


def grpo(folder: str, path: str, s: dict[str, Any]) -> Any:
    """Samples of prompts of one length, none of which ends early, against the first weights."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    draw = random.Random(0)
    words = [tokenizer.decode([i]) for i in range(1000, 4000)]
    whole = [w for w in words if tokenizer(w)["input_ids"] == tokenizer(w)["input_ids"][:1]]
    prompts = ["".join(draw.choices(whole, k=s["prompt"])) for _ in range(64)]
    config = trl.GRPOConfig(
        **common(folder, s["dtype"]),
        per_device_train_batch_size=s["rows"],
        num_generations=s["samples"],
        max_completion_length=s["new"],
        beta=0.04,
        temperature=1.0,
        generation_kwargs={"min_new_tokens": s["new"]},
    )
    return trl.GRPOTrainer(
        model=model(path, s["dtype"]),
        reward_funcs=lambda completions, **_: [float(len(set(text))) for text in completions],
        args=config,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=tokenizer,
        callbacks=[OnDemand()],
    )


def sft(folder: str, path: str, s: dict[str, Any]) -> Any:
    """Rows of given lengths, in batches padded to their longest."""
    draw = random.Random(0)
    rows = [[draw.randrange(5, 40_000) for _ in range(n)] for n in s["lengths"]]
    config = trl.SFTConfig(
        **common(folder, s["dtype"]),
        per_device_train_batch_size=s["rows"],
        max_length=s["longest"],
        packing=False,
    )
    return trl.SFTTrainer(
        model=model(path, s["dtype"]),
        args=config,
        train_dataset=Dataset.from_dict({"input_ids": rows}),
        processing_class=transformers.AutoTokenizer.from_pretrained(path),
        callbacks=[OnDemand()],
    )


def model(path: str, dtype: str) -> Any:
    """The weights, in float32 for autocast."""
    kept = torch.bfloat16 if dtype == "bfloat16" else torch.float32
    return transformers.AutoModelForCausalLM.from_pretrained(path, dtype=kept)


if __name__ == "__main__":
    sys.stdout = sys.stderr  # trainers print
    kind, path, settings = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    say(torch=torch.__version__, transformers=transformers.__version__, trl=trl.__version__)
    with tempfile.TemporaryDirectory() as folder:
        {"grpo": grpo, "sft": sft}[kind](folder, path, settings).train()
