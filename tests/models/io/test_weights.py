"""Weights in safetensors files."""

import pytest

from cai_jax.models.io.weights import SafetensorsWeights


def test_truncated_and_pickled_weights_are_refused(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        SafetensorsWeights(folder)
    file.rename(folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="safetensors only"):
        SafetensorsWeights(folder)
