"""Readers of weight files, with Hugging Face's names and orientation of tensors.

A reader opens a file without loading it, lists its tensors, and reads one at a time, so that host
memory never holds a whole large model. Nothing here unpickles or runs remote code.
"""

import json
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import SafetensorError, safe_open


class Weights(Protocol):
    """Tensors of a checkpoint by Hugging Face name."""

    @property
    def path(self) -> Path:
        """The file, or the folder."""

    @property
    def dtype(self) -> str:
        """Storage dtype of the tensors, as NumPy names it."""

    def names(self) -> set[str]:
        """Names of all tensors."""

    def read(self, name: str) -> np.ndarray:
        """One tensor, float32; projections are [out, in].

        Raises:
          KeyError: no tensor has this name.
        """


_TYPES = {"BF16": "bfloat16", "F16": "float16"}  # from safetensors' names


class SafetensorsWeights:
    """A Hugging Face folder: model.safetensors, or shards with an index.

    Raises:
      ValueError: there are no safetensors files, or one is not readable.
    """

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
        self._files: dict[str, safe_open] = {}
        self._shard_of: dict[str, str] = {}
        for shard in sorted(shards):
            try:
                self._files[shard] = safe_open(folder / shard, framework="numpy")
            except (SafetensorError, OSError) as error:
                raise ValueError(
                    f"{folder / shard}: not a readable safetensors file ({error}); "
                    "download it again"
                ) from error
            self._shard_of.update(dict.fromkeys(self._files[shard].keys(), shard))

    @cached_property
    def dtype(self) -> str:
        """Storage dtype of the first tensor, as NumPy names it."""
        name = min(self._shard_of)
        file = self._files[self._shard_of[name]]
        return _TYPES.get(file.get_slice(name).get_dtype(), "float32")

    def names(self) -> set[str]:
        """Names of all tensors."""
        return set(self._shard_of)

    def read(self, name: str) -> np.ndarray:
        """One tensor as float32."""
        return self._files[self._shard_of[name]].get_tensor(name).astype(np.float32)


def _shards(index: Path) -> set[str]:
    """File names of the shards that an index lists."""
    try:
        return set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{index}: not an index with a weight_map ({error}); download it again"
        ) from None
