"""Loading: models are what was written, and bad files are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

from cai_jax.models.blueprint import Blueprint
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource, resolve
from cai_jax.models.layers import LoRAParam
from cai_jax.models.params import init_on_mesh

FLOAT32, HALF = jnp.dtype(jnp.float32), jnp.dtype(jnp.bfloat16)


def load(source, mesh, dtype=FLOAT32):
    """A policy as it was trained."""
    return load_policy(source, policy_blueprint(source, dtype), mesh)


def load_merged(source, mesh, dtype=FLOAT32, param_dtype=None):
    """A policy with every update merged."""
    return load_policy(source, Blueprint(Decoder, source.config, dtype), mesh, param_dtype)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.norm.weight"), ["model.norm.weight", "missing"]),
        (lambda t: t.update(extra=np.ones(2, np.float32)), ["extra", "no place"]),
        (
            lambda t: t.update({"model.norm.weight": np.ones(31, np.float32)}),
            ["model.norm.weight", "(31,)", "(32,)"],
        ),
        (
            lambda t: t["model.layers.1.mlp.up_proj.weight"].__setitem__(0, np.nan),
            ["model.layers.1.mlp.up_proj.weight", "NaN"],
        ),
    ],
)
def test_bad_tensors_are_named(folder, mesh, change, words):
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(ValueError, match="tiny") as error:
        load(ModelSource(folder), mesh)
    for word in words:
        assert word in str(error.value)


def test_an_output_projection_is_not_lost_in_silence(folder, mesh):
    tensors = load_file(folder / "model.safetensors")
    table = tensors["model.embed_tokens.weight"]
    for output, fits in ((table, True), (table + 1, False)):
        save_file(tensors | {"lm_head.weight": output.copy()}, folder / "model.safetensors")
        if fits:
            load(ModelSource(folder), mesh)
        else:
            with pytest.raises(ValueError, match="tie_word_embeddings is true"):
                load(ModelSource(folder), mesh)


def save_lora(folder, source, base, mesh, seed):
    """A checkpoint with an update; its workdir is two folders above it."""
    lora = LoRAConfig(2, 4.0)
    blueprint = Blueprint(Decoder, source.config, FLOAT32, lora)
    update = init_on_mesh(lambda: blueprint.build(seed), LoRAParam, mesh)
    update = jax.tree.map(lambda x: x + 0.05, update)
    folder.mkdir(parents=True)
    save_checkpoint(
        folder, CheckpointInfo("policy", base_of(base, folder, folder.parents[1]), lora), update
    )
    return lora, update


def test_checkpoints_stack_and_their_workdir_moves(folder, tmp_path, mesh, mesh8, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second = tmp_path / "run" / "sl" / "checkpoint", tmp_path / "run" / "rl" / "checkpoint"
    save_lora(first, ModelSource(folder), "tiny", mesh, 0)
    save_lora(second, ModelSource(folder), str(first), mesh, 1)
    folder.rename(tmp_path / "away")
    with pytest.raises(ValueError, match="no such file"):
        resolve("run/rl/checkpoint", tmp_path)
    (tmp_path / "away").rename(folder)
    (tmp_path / "moved" / "far").mkdir(parents=True)
    moved = (tmp_path / "run").rename(tmp_path / "moved" / "far" / "run")
    source = resolve(str(moved / "rl" / "checkpoint"), tmp_path)
    assert source.path.samefile(folder)
    expected = [moved / "sl" / "checkpoint", moved / "rl" / "checkpoint"]
    assert [path.resolve() for path, _ in source.checkpoints] == expected
    tokens = jnp.arange(12)[None]

    def logits(model):
        decoder = nnx.merge(model.graph, model.params)
        return decoder.logits(decoder.hidden(tokens, jnp.ones_like(tokens)))

    apart, merged = load(source, mesh), load_merged(source, mesh)
    np.testing.assert_allclose(logits(apart), logits(merged), atol=1e-3)
    base = load(ModelSource(folder), mesh)
    assert np.abs(logits(apart) - logits(base)).max() > 0.1
    with jax.set_mesh(mesh8):
        eight = logits(load(source, mesh8))
    np.testing.assert_allclose(eight, logits(apart), atol=1e-3)


def test_small_updates_survive_bfloat16(folder, tmp_path, mesh):
    """A policy runs as it was trained, not as its rounded sum."""
    source = ModelSource(folder)
    checkpoint = tmp_path / "checkpoint"
    lora, update = save_lora(checkpoint, source, str(folder), mesh, 0)
    loaded = load(resolve(str(checkpoint), tmp_path), mesh, HALF)
    graph = Blueprint(Decoder, source.config, HALF, lora).graph
    trained = nnx.merge(graph, update, load_merged(source, mesh, HALF).params)
    tokens = jnp.arange(10)[None]
    run = lambda decoder: decoder.hidden(tokens, jnp.ones_like(tokens))
    np.testing.assert_array_equal(run(trained), run(nnx.merge(loaded.graph, loaded.params)))


def test_norms_are_not_rounded(folder, tmp_path, mesh):
    """Trained in float32 and run in bfloat16, a policy is one function wherever it is kept."""
    weights = load_file(folder / "model.safetensors")
    rng = np.random.default_rng(0)
    for name in weights:
        if name.endswith("norm.weight"):
            weights[name] += rng.normal(0, 1e-2, weights[name].shape).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    source = ModelSource(folder)
    masters = load_merged(source, mesh, HALF, FLOAT32)
    save_checkpoint(tmp_path / "full", CheckpointInfo("policy", str(folder), None), masters.params)
    tokens = jnp.arange(10)[None]
    run = lambda model: nnx.merge(model.graph, model.params).hidden(tokens, jnp.ones_like(tokens))
    for kept in (source, resolve(str(tmp_path / "full"), tmp_path)):
        model = load(kept, mesh, HALF)
        assert model.params["embedding"].get_value().dtype == HALF
        np.testing.assert_array_equal(run(model), run(masters))
