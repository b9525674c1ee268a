"""Models are abstract first: what loading fills is what was said before."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from described import described
from flax import nnx
from safetensors.numpy import load_file, save_file
from tiny_model import write_tiny_model

from cai_jax.learning.train import abstract_state, abstract_trainable, init_state, make_trainable
from cai_jax.models.blueprint import Blueprint, inside, under
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue, PreferenceModel
from cai_jax.models.io import load
from cai_jax.models.io.checkpoint import CheckpointInfo, save_checkpoint
from cai_jax.models.io.load import (
    load_policy,
    load_preference_model,
    merge_programs,
    policy_blueprint,
    preference_blueprint,
)
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.mesh import make_mesh
from cai_jax.parallel.program import Program

FLOAT32, HALF = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)
LORA = LoRAConfig(2, 4.0)
# What the checkpoints of a source hold, from the pretrained model on.
SOURCES = {
    "pretrained": [],
    "lora": [("policy", LORA)],
    "whole": [("policy", None)],
    "lora on lora": [("policy", LORA), ("policy", LoRAConfig(3, 6.0))],
    "lora on whole": [("policy", None), ("policy", LORA)],
    "whole on lora": [("policy", LORA), ("policy", None)],
    "preference lora": [("preference", LORA)],
    "preference whole": [("preference", None)],
    "preference lora on lora": [("policy", LORA), ("preference", LORA)],
}


@pytest.fixture(scope="module", params=["one device", "eight devices"])
def layout(request):
    if request.param == "one device":
        return make_mesh(1, 1, 1, jax.devices()[:1])
    return make_mesh(2, 2, 2)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Every source of ``SOURCES``, and a sequence classifier."""
    root = tmp_path_factory.mktemp("sources")
    base, one = ModelSource(write_tiny_model(root / "base")), make_mesh(1, 1, 1, jax.devices()[:1])
    out = {}
    for name, checkpoints in SOURCES.items():
        source = base
        for number, (kind, lora) in enumerate(checkpoints):
            module = PreferenceModel if kind == "preference" else Decoder
            blueprint = Blueprint(module, source.config, FLOAT32, lora)
            _, params, _ = blueprint.abstract_trainable(one)
            rng = np.random.default_rng(number)
            draw = lambda x, rng=rng: jnp.asarray(rng.normal(0, 0.1, x.shape), x.dtype)
            folder, info = root / name / str(number), CheckpointInfo(kind, "unused", lora)
            folder.mkdir(parents=True)
            save_checkpoint(folder, info, jax.tree.map(draw, params))
            source = source.trained(folder, info)
        out[name] = source
    classifier = write_tiny_model(root / "classifier")
    fields = json.loads((classifier / "config.json").read_text())
    fields["architectures"] = ["LlamaForSequenceClassification"]
    (classifier / "config.json").write_text(json.dumps(fields))
    tensors = load_file(classifier / "model.safetensors")
    tensors["score.weight"] = np.ones((1, fields["hidden_size"]), np.float32)
    save_file(tensors, classifier / "model.safetensors")
    return out | {"classifier": ModelSource(classifier)}


def zeros(wanted):
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype, device=x.sharding), wanted)


@pytest.mark.parametrize("dtype", [FLOAT32, HALF], ids=str)
@pytest.mark.parametrize("name", [*SOURCES, "classifier"])
def test_loading_fills_what_the_blueprint_describes(sources, layout, name, dtype):
    source = sources[name]
    if source.kind == "preference":
        blueprint, fill = preference_blueprint(source, dtype), load_preference_model
    else:
        blueprint, fill = policy_blueprint(source, dtype), load_policy
    wanted, model = blueprint.abstract(layout), fill(source, blueprint, layout)
    assert model.graph == wanted.graph
    assert described(model.params) == described(wanted.params)
    assert any("lora_a" in path for path, *_ in described(wanted.params)) == bool(source.lora)
    assert model.size == wanted.size


@pytest.mark.parametrize("storage", [None, FLOAT32], ids=str)
@pytest.mark.parametrize("name", [name for name in SOURCES if "preference" not in name])
def test_merging_fills_what_the_blueprint_describes(sources, layout, name, storage):
    source = sources[name]
    blueprint = Blueprint(Decoder, source.config, HALF)
    wanted = blueprint.abstract(layout, storage)
    assert wanted.params["embedding"].get_value().dtype == (storage or HALF)
    model = load_policy(source, blueprint, layout, storage)
    assert described(model.params) == described(wanted.params)


@pytest.mark.parametrize("name", ["lora", "lora on lora", "preference lora on lora"])
def test_merges_are_the_programs_that_were_listed(sources, layout, name, monkeypatch):
    source = sources[name]
    source = source.below if source.kind == "preference" else source
    wanted = Blueprint(Decoder, source.config, HALF).abstract(layout)
    ran, call = [], Program.__call__

    def spy(program, *args):
        ran.append((described(program.args), dict(program.static)))
        assert described(args) == described(program.args)
        return call(program, *args)

    monkeypatch.setattr(Program, "__call__", spy)
    load.fill_merged(source, wanted.params)
    listed = merge_programs(source, wanted.params)
    assert ran == [(described(program.args), dict(program.static)) for program in listed]
    assert len(ran) == len(source.checkpoints)


@pytest.mark.parametrize("lora", [None, LORA], ids=str)
@pytest.mark.parametrize("module", [Decoder, PreferenceModel, PolicyWithValue])
def test_training_starts_from_what_the_blueprint_describes(layout, module, lora):
    from host_numbers import OPTIMIZER

    blueprint = Blueprint(module, TINY, HALF, lora, frozen_layers=1)
    stored = HALF if lora else FLOAT32
    plain = Blueprint(Decoder, TINY, HALF)
    ours = make_trainable(blueprint, zeros(plain.abstract(layout, stored).params), layout, seed=0)
    wanted = abstract_trainable(blueprint, layout)
    assert ours.graph == wanted.graph
    assert described(ours.params) == described(wanted.params)
    assert described(ours.frozen) == described(wanted.frozen)
    whole = nnx.merge_state(wanted.params, wanted.frozen)
    assert described(whole) == described(blueprint.abstract(layout, stored).params)
    state = init_state(ours.params, OPTIMIZER)
    assert described(state) == described(abstract_state(wanted.params, OPTIMIZER))


def test_new_parameters_follow_the_seed(mesh):
    blueprint = Blueprint(Decoder, TINY, FLOAT32, LORA)
    base = zeros(Blueprint(Decoder, TINY, FLOAT32).abstract(mesh).params)
    start = lambda seed: make_trainable(blueprint, base, mesh, seed).params
    one, again, other = jax.device_get((start(0), start(0), start(1)))
    jax.tree.map(np.testing.assert_array_equal, one, again)
    different = jax.tree.map(lambda a, b: bool((a != b).any()), one, other)
    assert any(jax.tree.leaves(different))


def test_parameters_below_an_attribute_and_back(mesh):
    params = Blueprint(PolicyWithValue, TINY, FLOAT32).abstract(mesh).params
    decoder = inside("decoder", params)
    assert described(decoder) == described(Blueprint(Decoder, TINY, FLOAT32).abstract(mesh).params)
    head = nnx.from_flat_state(
        [(path, v) for path, v in nnx.to_flat_state(params) if path[0] != "decoder"]
    )
    assert described(nnx.merge_state(head, under("decoder", decoder))) == described(params)


def test_a_preference_model_is_no_policy(sources, mesh):
    for name, fill, kind in (
        ("preference lora", load_policy, policy_blueprint),
        ("classifier", load_policy, policy_blueprint),
        ("lora", load_preference_model, preference_blueprint),
    ):
        with pytest.raises(ValueError, match="model is wanted; name another source"):
            fill(sources[name], kind(sources[name], FLOAT32), mesh)
