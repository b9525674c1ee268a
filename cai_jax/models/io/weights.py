"""Readers of weight files, all under Hugging Face names and orientation.

A reader opens a file without loading it, lists its tensors, and reads one at a time, so that a
large model never stands whole in host memory. Nothing here unpickles or runs remote code.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open


class Weights(Protocol):
    """Tensors of a checkpoint by Hugging Face name."""

    path: Path
    dtype: str  # that the tensors are stored in

    def names(self) -> set[str]:
        """Names of all tensors."""

    def read(self, name: str) -> np.ndarray:
        """One tensor, float32, [out, in] for projections."""


_TYPES = {"BF16": "bfloat16", "F16": "float16"}  # safetensors' names of what is not float32


class SafetensorsWeights:
    """A Hugging Face folder: model.safetensors, or shards with an index."""

    def __init__(self, folder: Path):
        self.path = folder
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        if index.exists():
            shards = _shards(index)
        elif single.exists():
            shards = {single.name}
        else:
            raise ValueError(
                f"{folder}: no model.safetensors and no model.safetensors.index.json; cai_jax "
                "reads safetensors only, so convert pickled weights first"
            )
        self._files, self._home = {}, {}
        for shard in sorted(shards):
            try:
                self._files[shard] = safe_open(folder / shard, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise ValueError(
                    f"{folder / shard}: not a readable safetensors file ({error}); "
                    "download it again"
                ) from error
            self._home.update(dict.fromkeys(self._files[shard].keys(), shard))

    @cached_property
    def dtype(self) -> str:
        """Type of the first tensor, as NumPy names it."""
        name = min(self._home)
        return _TYPES.get(self._files[self._home[name]].get_slice(name).get_dtype(), "float32")

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._home)

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        return self._files[self._home[name]].get_tensor(name).astype(np.float32)


def _shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{index}: not an index with a weight_map ({error}); download it again"
        ) from None
