"""Weights in safetensors files."""

import json
import os

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cai_jax.models.io.weights import SafetensorsWeights


def test_truncated_and_pickled_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        SafetensorsWeights(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors only"):
        SafetensorsWeights(folder)


def write_index(folder, shards):
    names = load_file(folder / "model.safetensors")
    text = json.dumps({"weight_map": dict.fromkeys(names, shards)})
    (folder / "model.safetensors.index.json").write_text(text)


@pytest.mark.parametrize(
    "shard",
    ["../a.safetensors", "/etc/a.safetensors", "..", "a.bin", "", 1, None, "\0.safetensors"],
)
def test_an_index_names_files_beside_it(folder, shard):
    write_index(folder, shard)
    with pytest.raises(ValueError, match=r"index\.json: field weight_map"):
        SafetensorsWeights(folder)


def test_shards_are_regular_files_of_the_folder_or_of_the_hubs_cache(folder, tmp_path):
    write_index(folder, "a.safetensors")
    shard, elsewhere = folder / "a.safetensors", tmp_path / "elsewhere"
    os.mkfifo(shard)
    with pytest.raises(ValueError, match=r"a\.safetensors: no regular file"):
        SafetensorsWeights(folder)
    shard.unlink()
    (folder / "model.safetensors").rename(elsewhere)
    shard.symlink_to(elsewhere)
    with pytest.raises(ValueError, match=r"a\.safetensors: leads out of the model's folder"):
        SafetensorsWeights(folder)
    hub = tmp_path / "models--a--b"
    (hub / "blobs").mkdir(parents=True)
    (hub / "snapshots").mkdir()
    elsewhere.rename(hub / "blobs" / "1")
    snapshot = folder.rename(hub / "snapshots" / "2")
    (snapshot / "a.safetensors").unlink()
    (snapshot / "a.safetensors").symlink_to("../../blobs/1")
    assert "model.norm.weight" in SafetensorsWeights(snapshot).names()


def test_a_tensor_stands_in_one_shard(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    save_file({"model.norm.weight": tensors["model.norm.weight"]}, folder / "b.safetensors")
    shard_of = dict.fromkeys(tensors, file.name) | {"model.norm.weight": "b.safetensors"}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": shard_of}))
    with pytest.raises(ValueError, match=r"norm\.weight stands in b\.safetensors"):
        SafetensorsWeights(folder)


def test_integers_are_no_weights_without_their_scales(folder):
    file = folder / "model.safetensors"
    tensors = load_file(file)
    buffer = {"model.layers.0.attention.bias": np.ones((1, 1, 4, 4), np.uint8)}
    save_file(tensors | buffer, file)
    SafetensorsWeights(folder)  # which is no weight
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(tensors | {name: tensors[name].astype(np.int8)}, file)
    with pytest.raises(ValueError, match=f"{name} is stored as I8, which is no weight"):
        SafetensorsWeights(folder)
