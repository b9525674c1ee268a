"""Weights in .gguf files: what is read is what was written, and other files are refused."""

from dataclasses import replace

import gguf
import numpy as np
import pytest
from gguf_files import fits_blocks, write_gguf
from safetensors.numpy import load_file

from cai_jax.models.io.fields import read_fields
from cai_jax.models.io.gguf_weights import GGUFWeights
from cai_jax.models.io.sources import ModelSource


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
