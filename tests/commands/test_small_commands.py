"""score, generate and convert, as a user runs them."""

import json
import shutil

import commanded
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny_model import write_tiny_model

from cai_jax.commands import texts
from cai_jax.data.jsonl import JsonRow
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import init_on_mesh


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_model(tmp_path_factory.mktemp("commands") / "tiny")


def command(name, folder, rows, *flags):
    """Runs a command on some rows; what it answers, or what it says and no file."""
    data, out = folder.parent / "in.jsonl", folder.parent / "out.jsonl"
    out.unlink(missing_ok=True)
    data.write_text(
        "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)
    )
    done = commanded.command(name, f"--model={folder}", f"--data={data}", f"--out={out}", *flags)
    if done.returncode:
        assert not out.exists()
        assert "Traceback" not in done.stderr
        return done.stderr
    return [json.loads(line) for line in out.read_text().splitlines()]


def test_what_generate_samples_score_finds_as_likely(folder):
    rows = [{"prompt_ids": [5, 6, 7], "id": "a"}, {"prompt": "the good"}, {"prompt_ids": [9]}]
    made = command("generate", folder, rows, "--max_new_tokens=7", "--seed=3", "--batch_size=2")
    assert [row.get("id") for row in made] == ["a", None, None]
    assert "completion" in made[1]
    assert "completion" not in made[0]
    again = command("generate", folder, [*rows, ""], "--max_new_tokens=7", "--seed=3")
    assert [row["completion_ids"] for row in again] == [row["completion_ids"] for row in made]
    other = command("generate", folder, rows, "--max_new_tokens=7", "--seed=4")
    assert [row["completion_ids"] for row in other] != [row["completion_ids"] for row in made]
    pairs = [
        {"prompt_ids": row["prompt_ids"], "completion_ids": row["completion_ids"]}
        for row in (made[0], made[2])
    ]
    scored = command("score", folder, pairs)
    for sampled, found in zip((made[0], made[2]), scored, strict=True):
        np.testing.assert_allclose(found["token_logprobs"], sampled["token_logprobs"], atol=1e-4)


def test_plain_text_and_chats(folder):
    row = {"prompt": "the good", "completion": "a safe reply"}
    turns = {"messages": [{"role": "user", "content": "the good"}], "completion": "a safe reply"}
    chat, same = command("score", folder, [row, turns])
    assert same["token_logprobs"] == chat["token_logprobs"]
    (plain,) = command("score", folder, [row], "--nochat")
    assert len(chat["token_logprobs"]) == len(plain["token_logprobs"]) + 1  # the end of the turn
    (greedy,) = command("generate", folder, [row], "--temperature=0", "--max_new_tokens=3")
    assert 1 <= len(greedy["completion_ids"]) <= 3


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("{broken", ["in.jsonl, line 1", "JSON"]),
        ({"completion_ids": [3]}, ["in.jsonl, line 1", "'prompt'", "prompt_ids"]),
        ({"messages": [], "completion": "a"}, ["in.jsonl, line 1", "'messages'", "list"]),
        ({"prompt_ids": [], "completion_ids": [3]}, ["in.jsonl, line 1", "prompt_ids", "empty"]),
        (
            {"prompt_ids": [10**6], "completion_ids": [3]},
            ["in.jsonl, line 1", "1000000", "vocabulary"],
        ),
        ({"prompt_ids": [3] * 2100, "completion_ids": [3]}, ["in.jsonl, line 1", "2101", "2048"]),
    ],
)
def test_bad_rows_are_named(folder, row, words):
    said = command("score", folder, [row])
    assert all(word in said for word in words), said


@pytest.mark.parametrize("field", ["prompt", "completion"])
def test_ids_that_the_model_does_not_embed_are_told_with_their_line(folder, field):
    source = ModelSource(folder)
    size = source.config.vocab_size
    row = lambda i: JsonRow(folder / "in.jsonl", 3, {f"{field}_ids": [4, i]})
    assert texts.token_ids([row(size - 1)], source, field) == [[4, size - 1]]
    with pytest.raises(
        ValueError, match=rf"in\.jsonl, line 3: id {size} in '{field}'.* {size} tok"
    ):
        texts.token_ids([row(size)], source, field)


def test_a_model_without_a_template_reads_plain_text(folder, tmp_path):
    plain = tmp_path / "plain"
    shutil.copytree(folder, plain)
    (plain / "chat_template.jinja").unlink()
    row = {"prompt": "the good", "completion": "a safe reply"}
    assert command("score", plain, [row]) == command("score", folder, [row], "--nochat")
    assert "chat template" in command("score", plain, [row], "--chat")


def trained(folder, base, mesh, kind):
    """A checkpoint on the model in a folder, with random low-rank updates, and head."""
    lora, module = LoRAConfig(3, 6.0), PreferenceModel if kind == "preference" else Decoder
    build = lambda: module(ModelSource(base).config, lora, jnp.float32, rngs=nnx.Rngs(0))
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype)
    params = jax.tree.map(draw, init_on_mesh(build, (LoRAParam, HeadParam), mesh))
    folder.mkdir()
    save_checkpoint(folder, CheckpointInfo(kind, str(base), lora), params)
    return folder


@pytest.mark.parametrize(
    ("kind", "answer"), [("preference", "score"), ("policy", "token_logprobs")]
)
def test_a_converted_model_scores_as_before(folder, tmp_path, mesh, kind, answer):
    rows = [
        {"prompt": "the good", "completion": "a safe reply"},
        {"prompt": "a", "completion": "b"},
    ]
    model = trained(tmp_path / "trained", folder, mesh, kind)
    done = commanded.command("convert", f"--from={model}", f"--to={tmp_path}/out")
    assert done.stdout.strip() == f"{tmp_path}/out", done.stderr[-2000:]
    before, after = (command("score", source, rows) for source in (model, tmp_path / "out"))
    base = command("score", folder, rows)
    for i in range(2):
        np.testing.assert_allclose(after[i][answer], before[i][answer], atol=1e-4)
        assert before[i][answer] != base[i].get(answer)


def test_a_preference_model_writes_no_text(folder, tmp_path, mesh):
    model = trained(tmp_path / "trained", folder, mesh, "preference")
    said = command("generate", model, [{"prompt": "the good"}])
    assert "a preference model, but a policy model is wanted" in said


@pytest.mark.parametrize("sizes", ["3,1,1", "1,1", "a,1,1"])
def test_a_mesh_that_does_not_fit_names_its_flag(folder, sizes):
    row = {"prompt": "the good", "completion": "a safe reply"}
    said = command("score", folder, [row], f"--mesh={sizes}")
    assert said.splitlines()[-1].startswith("error: --mesh: ")


def test_a_model_that_gives_nan_is_named(tmp_path):
    """Its weights are finite and too large, so that nothing shows before it runs."""
    folder = write_tiny_model(tmp_path / "tiny")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] *= 3e38
    save_file(weights, folder / "model.safetensors")
    row = {"prompt": "the good", "completion": "a safe reply"}
    for name in ("generate", "score"):
        said = command(name, folder, [row])
        assert f"the model {folder} gives" in said
        assert "are NaN or infinite" in said
