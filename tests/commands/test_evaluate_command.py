"""evaluate, as a user runs it: what comes out, and that bad input is one line before any model."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from commanded import command
from conftest import ROOT
from flax import nnx

from cai_jax.models.config import LoRAConfig
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import init_on_mesh

ITEMS = [
    {"prompt": "how", "chosen": "a good reply", "rejected": "a bad reply", "subset": "kind"},
    {"prompt": "why", "chosen": "help", "rejected": ["harm", "not", "so bad"], "subset": "safe"},
]


def lines(path, rows):
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(f"{r if isinstance(r, str) else json.dumps(r)}\n" for r in rows))
    return path


def evaluate(tmp_path, model, task, rows, *flags):
    """The answer of the command, or what it says where it refuses."""
    data, out = lines(tmp_path / "in.jsonl", rows), tmp_path / "out.json"
    where = f"--model={model}", f"--task={task}", f"--data={data}", f"--out={out}"
    done = command("evaluate", *where, *flags)
    if done.returncode:
        assert not out.exists()
        assert "Traceback" not in done.stderr
        return done.stderr.splitlines()[-1]
    return json.loads(out.read_text())


@pytest.fixture(scope="module")
def judge(model_folder, tmp_path_factory, mesh):
    """A random preference model."""
    folder, lora = tmp_path_factory.mktemp("judge") / "pm", LoRAConfig(3, 6.0)
    config = ModelSource(model_folder).config
    build = lambda: PreferenceModel(config, lora, jnp.float32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype)
    folder.mkdir()
    params = jax.tree.map(draw, init_on_mesh(build, (LoRAParam, HeadParam), mesh))
    save_checkpoint(folder, CheckpointInfo("preference", str(model_folder), lora, 0.5, 2.0), params)
    return folder


def test_a_language_model_is_asked_and_what_it_picked_is_told(tmp_path, model_folder):
    flags = ("--methods=multiple_choice,contrast,five_chains", "--max_new_tokens=2")
    found = evaluate(tmp_path, model_folder, "hhh", ITEMS, *flags)
    assert (found["task"], found["model"]) == ("hhh", str(model_folder))
    assert [item["id"] for item in found["items"]] == ["line-1", "line-2"]
    for item, row in zip(found["items"], ITEMS, strict=True):
        assert set(item) == {"id", "category", "multiple_choice", "contrast", "five_chains"}
        options = 1 + np.atleast_1d(row["rejected"]).size
        assert len(item["multiple_choice"]["scores"]) == options
    groups = {(m["subject"], m["group"]) for m in found["measurements"]}
    assert groups == {
        (method, group)
        for method in ("multiple_choice", "contrast", "five_chains")
        for group in ("all", "kind", "safe")
    }


def test_what_samples_is_done_where_it_is_named(tmp_path, model_folder):
    found = evaluate(tmp_path, model_folder, "hhh", ITEMS[:1])
    assert set(found["items"][0]) == {"id", "category", "multiple_choice", "contrast"}


def test_a_preference_model_scores_and_judges(tmp_path, model_folder, judge):
    found = evaluate(tmp_path, judge, "reward_bench", ITEMS)
    one, four = (item["preference_model"]["scores"] for item in found["items"])
    assert (len(one), len(four)) == (2, 4)
    prompts = [{"prompt": f"the bad way {n}"} for n in range(40)]
    flags = (f"--judge={judge}", "--max_new_tokens=24")
    tried = evaluate(tmp_path, model_folder, "red_team", prompts, *flags, "--threshold=0")
    values = [item["preference_model"] for item in tried["items"]]
    scores = [v["score"] for v in values if not v["unusable"]]
    assert 2 <= len(scores) < len(values)  # some parse, and some do not
    assert all(v["score"] is None and not v["success"] for v in values if v["unusable"])
    middle = float(np.mean(scores))
    again = evaluate(tmp_path, model_folder, "red_team", prompts, *flags, f"--threshold={middle}")
    harmful = [item["preference_model"]["success"] for item in again["items"]]
    assert sum(harmful) == sum(score < middle for score in scores) > 0
    shares = {m["measure"]: m["mean"] for m in again["measurements"]}
    assert shares["success"] == np.mean(harmful)
    assert shares["unusable"] == 1 - len(scores) / len(values)


def test_replies_are_classed_by_the_rule_and_by_another_model(tmp_path, model_folder):
    rows = [{"safe": f"is it good {n} ?", "unsafe": f"is it bad {n} ?"} for n in range(2)]
    flags = ("--methods=rule,model", f"--judge={model_folder}", "--max_new_tokens=4")
    found = evaluate(tmp_path, model_folder, "twins", rows, *flags)
    for item in found["items"]:
        assert item["rule"]["replies"] == item["model"]["replies"]
        assert set(item["model"]["classes"]) == {"safe", "unsafe"}
    assert {m["subject"] for m in found["measurements"]} == {"rule", "model"}
    refused = [item["rule"]["over_refusal"] for item in found["items"]]
    shares = {(m["subject"], m["measure"]): m["mean"] for m in found["measurements"]}
    assert shares["rule", "over_refusal"] == np.mean(refused)


def test_questions_and_plain_text(tmp_path, model_folder):
    row = {"prompt": "is it good ? the reply is", "corrects": [" so"], "incorrects": [" not"]}
    asked = evaluate(tmp_path, model_folder, "questions", [row])
    assert len(asked["items"][0]["likelihood"]["scores"]) == 2
    text = evaluate(tmp_path, model_folder, "perplexity", [{"text": "the good way"}], "--window=2")
    assert text["items"][0]["likelihood"]["tokens"] == 3


BAD = [
    ("hhh", ["{"], (), ["in.jsonl, line 1", "JSON"]),
    ("hhh", [ITEMS[0], {"prompt": "a"}], (), ["in.jsonl, line 2", "'prompt'", "'chosen'"]),
    ("hhh", [], (), ["in.jsonl", "holds no choices"]),
    ("hhh", ITEMS, ("--methods=guess",), ["--methods", "'guess'", "multiple_choice"]),
    ("hhh", ITEMS, ("--methods=preference_model",), ["--methods", "a policy model"]),
    ("hhh", ITEMS, ("--few_shots=2",), ["--few_shots", "--constitution"]),
    ("hhh", ITEMS, ("--few_shots=99", "--constitution=constitutions/harmless.yaml"), ["99"]),
    ("hhh", [ITEMS[0] | {"prompt": "a " * 3000}], (), ["in.jsonl, line 1", "2048"]),
    ("reward_bench", ITEMS, (), ["--task", "reward_bench", "policy"]),
    ("red_team", [{"prompt": "a"}], (), ["--judge"]),
    ("red_team", [{"prompt": "a"}], ("--judge=x",), ["--threshold", "deviations", "logits"]),
    ("red_team", [{"prompt": "a", "id": 1}] * 2, (), ["id '1' stands twice"]),
    ("red_team", [{"prompt": "a"}], ("--judge={model}", "--threshold=0"), ["--judge", "policy"]),
    ("hhh", ITEMS, ("--out=/proc/x/o.json",), ["--out", "cannot be written"]),
    ("hhh", ITEMS, ("--out=/tmp",), ["--out", "a folder"]),
    ("red_team", [{"prompt": ""}], (), ["in.jsonl, line 1", "'prompt'"]),
    ("twins", [{"safe": "a"}], (), ["in.jsonl, line 1", "'unsafe'"]),
    ("evasiveness", [{"prompt": "a"}], ("--methods=guess",), ["'guess'", "rule, model"]),
    ("evasiveness", [{"prompt": "a"}], ("--methods=model", "--judge=x"), ["--judge: ", "x"]),
    ("questions", [{"prompt": "a", "corrects": "b"}], (), ["line 1", "'incorrects'"]),
    ("perplexity", [{"text": 3}], (), ["in.jsonl, line 1", "'text'"]),
]

# Starting Python takes most of a refusal's time, so one process is refused all.
PROGRAM = """
import json, sys
from absl import flags
from cai_jax.evaluate import main
for arguments in json.load(sys.stdin):
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["evaluate", *arguments])
    try:
        main()
    except ValueError as error:
        print(json.dumps(str(error)))
"""


def test_bad_input_is_refused_before_a_model_is_loaded(tmp_path, folder):
    (folder / "model.safetensors").unlink()  # were it loaded, that would be the error
    defaults = ["--judge=", "--methods=", "--few_shots=0", "--constitution="]
    calls = []
    for number, (task, rows, flags, _) in enumerate(BAD):
        data = lines(tmp_path / f"{number}" / "in.jsonl", rows)
        own = [f"--model={folder}", f"--task={task}", f"--data={data}", f"--out={tmp_path}/out"]
        calls.append([*own, *defaults, *(flag.format(model=folder) for flag in flags)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        input=json.dumps(calls),
        capture_output=True,
        text=True,
        check=False,
    )
    assert not done.returncode, done.stderr[-2000:]
    said = [json.loads(line) for line in done.stdout.splitlines()]
    for words, error in zip((case[-1] for case in BAD), said, strict=True):
        assert all(word in error for word in words), error
        assert "safetensors" not in error


def test_a_refusal_is_one_line(tmp_path, model_folder):
    task, rows, flags, words = BAD[1]
    said = evaluate(tmp_path, model_folder, task, rows, *flags)
    assert said.startswith("error: ")
    assert all(word in said for word in words)


def test_an_unknown_task_is_refused_with_those_there_are(tmp_path, model_folder):
    said = evaluate(tmp_path, model_folder, "mmlu", ITEMS)
    assert all(word in said for word in ("error: ", "task", "hhh", "perplexity"))
