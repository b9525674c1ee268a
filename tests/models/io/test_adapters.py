"""PEFT adapters as model sources: what our own checkpoints give, tensor by tensor."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import ROOT
from flax import nnx
from safetensors.numpy import load_file, save_file

from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.adapters import ADAPTER_FILE, TENSORS_FILE, read_adapter_info
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.export import adapter_config, adapter_tensors
from cai_jax.models.io.load import (
    load_policy,
    load_preference_model,
    load_update,
    policy_blueprint,
    preference_blueprint,
)
from cai_jax.models.io.sources import _base_of_adapter, resolve
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import init_on_mesh, path_name

LORA = LoRAConfig(3, 6.0)


@pytest.fixture(params=["policy", "preference"])
def adapter(request, tmp_path, model_folder, mesh):
    """A checkpoint with a random low-rank update, and the same as PEFT stores it."""
    below, kind = resolve(str(model_folder), tmp_path), request.param
    module = PreferenceModel if kind == "preference" else Decoder
    rng = np.random.default_rng(0)
    draw = lambda x: jnp.asarray(rng.normal(0, 0.2, x.shape), x.dtype)
    build = lambda: module(below.config, LORA, jnp.float32, rngs=nnx.Rngs(0))
    trained = jax.tree.map(draw, init_on_mesh(build, (LoRAParam, HeadParam), mesh))
    own, peft = tmp_path / "own", tmp_path / "peft"
    own.mkdir()
    peft.mkdir()
    info = CheckpointInfo(kind, str(model_folder), LORA)
    save_checkpoint(own, info, trained)
    source = resolve(str(own), tmp_path)
    tensors = adapter_tensors(load_update(source, mesh), source.family.names, own)
    save_file(tensors, peft / TENSORS_FILE)
    fields = adapter_config(info, str(model_folder), tensors)
    (peft / ADAPTER_FILE).write_text(json.dumps(fields))
    return source, peft


def parameters(source, mesh):
    if source.kind == "preference":
        model = load_preference_model(source, preference_blueprint(source, jnp.float32), mesh)
    else:
        model = load_policy(source, policy_blueprint(source, jnp.float32), mesh)
    return {path_name(p): np.asarray(v.get_value()) for p, v in nnx.to_flat_state(model.params)}


def test_an_adapter_is_the_model_that_it_was_written_from(adapter, tmp_path, mesh):
    source, peft = adapter
    again = resolve(str(peft), tmp_path)
    assert (again.kind, again.lora, again.path) == (source.kind, LORA, source.path)
    ours, theirs = parameters(source, mesh), parameters(again, mesh)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(theirs[name], value)
    assert any("lora" in name and np.any(value) for name, value in ours.items())


def test_what_an_adapter_leaves_alone_has_no_update(adapter, tmp_path, mesh):
    _, peft = adapter
    tensors = load_file(peft / TENSORS_FILE)
    kept = {name: t for name, t in tensors.items() if ".q_proj." in name and ".0." in name}
    save_file(kept, peft / TENSORS_FILE)
    found = parameters(resolve(str(peft), tmp_path), mesh)
    updates = {name: value for name, value in found.items() if "lora" in name}
    touched = {name for name, value in updates.items() if np.any(value)}
    assert len(touched) == 2  # A and B of the queries
    assert not any(np.any(updates[name][1:]) for name in touched)  # of the first layer


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"use_dora": True}, ["use_dora is True", "plain LoRA"]),
        ({"peft_type": "IA3"}, ["peft_type is 'IA3'"]),
        ({"rank_pattern": {"q_proj": 4}}, ["rank_pattern"]),
        ({"task_type": None}, ["task_type is None", "CAUSAL_LM"]),
        ({"r": "8"}, ["r and lora_alpha"]),
    ],
)
def test_other_methods_are_refused_by_field(tmp_path, fields, words):
    plain = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 2, "lora_alpha": 4}
    (tmp_path / ADAPTER_FILE).write_text(json.dumps(plain | fields))
    with pytest.raises(ValueError, match=ADAPTER_FILE) as error:
        read_adapter_info(tmp_path)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t | {"base_model.model.other.lora_A.weight": np.zeros((3, 2))}, "other.lora_A"),
        (lambda t: {k: v[:, :2].copy() for k, v in t.items()}, "but the model has"),
        (lambda t: {k: v * np.nan for k, v in t.items()}, "NaN"),
        (None, "not a readable safetensors file"),
    ],
)
def test_a_bad_file_of_tensors_is_refused_by_name(adapter, tmp_path, mesh, change, words):
    _, peft = adapter
    file = peft / TENSORS_FILE
    if change is None:
        file.write_bytes(file.read_bytes()[:100])
    else:
        save_file({k: np.float32(v) for k, v in change(load_file(file)).items()}, file)
    with pytest.raises(ValueError, match=words) as error:
        parameters(resolve(str(peft), tmp_path), mesh)
    assert TENSORS_FILE in str(error.value)


@pytest.mark.parametrize(
    ("named", "found"),
    [("ORG/NAME", "hf:ORG/NAME"), ("pypi:a==1", "pypi:a==1"), ("base", "{folder}/base")],
)
def test_the_base_is_beside_the_adapter_or_a_repository(tmp_path, named, found):
    (tmp_path / "base").mkdir()
    assert _base_of_adapter(tmp_path, named) == found.format(folder=tmp_path)


def test_the_shipped_adapter_is_small_and_says_what_it_learned_from():
    folder = ROOT / "adapters" / "smollm2-135m-instruct"
    info = read_adapter_info(folder)
    assert (info.kind, info.base) == ("policy", "HuggingFaceTB/SmolLM2-135M-Instruct")
    assert (folder / TENSORS_FILE).stat().st_size < 6e6
    tensors = load_file(folder / TENSORS_FILE)
    assert len(tensors) == 30 * 7 * 2
    assert all(np.isfinite(value.astype(np.float32)).all() for value in tensors.values())
    shown = (ROOT / "datasets" / "demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
    assert f"{len(shown)} demonstrations" in (folder / "README.md").read_text(encoding="utf-8")
