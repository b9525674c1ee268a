"""Readers of weight files, with Hugging Face's names and orientation of tensors.

A reader opens a file without loading it, lists its tensors, and reads one at a time, so that host
memory never holds a whole large model. Nothing here unpickles or runs remote code.
"""

import re
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from safetensors import safe_open

from cai_jax.reading import FileError, check_regular, parsing, read_object


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


# Storage types by safetensors' names. Integers and 8-bit floats stand for other numbers by scales
# that are elsewhere: as they are, they are no weights.
_TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float32"}
# Buffers that some checkpoints carry beside their weights.
BUFFERS = re.compile(r".*(rotary_emb\.inv_freq|attention\.(masked_)?bias)$")
INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"


class SafetensorsWeights:
    """A Hugging Face folder: model.safetensors, or shards with an index.

    Raises:
      FileError: there are no safetensors files, one is not readable or not of the folder, or a
        tensor is stored as what is no weight.
    """

    def __init__(self, folder: Path):
        self.path = folder
        if (folder / INDEX).exists():
            shards = _shards(folder / INDEX)
        elif (folder / SINGLE).exists():
            shards = {SINGLE}
        else:
            raise FileError(
                folder,
                f"no {SINGLE} and no {INDEX}; cai_jax reads safetensors only, so convert pickled "
                "weights first",
            )
        self._files: dict[str, safe_open] = {}
        self._shard_of: dict[str, str] = {}
        for shard in sorted(shards):
            file = folder / shard
            _check_own(folder, file)
            self._files[shard] = open_safetensors(file)
            _check_types(file, self._files[shard])
            for name in sorted(self._files[shard].keys()):
                if other := self._shard_of.get(name):
                    raise FileError(file, f"tensor {name} stands in {other} too; keep one")
                self._shard_of[name] = shard
        if not self._shard_of:
            raise FileError(folder, "the safetensors files hold no tensor; download them again")

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
        shard = self._shard_of[name]
        with parsing(self.path / shard, f"tensor {name} cannot be read", "download it again"):
            return self._files[shard].get_tensor(name).astype(np.float32)


def open_safetensors(file: Path) -> safe_open:
    """Opens a regular file of safetensors.

    Raises:
      FileError: it is none.
    """
    check_regular(file)
    with parsing(file, "not a readable safetensors file", "download it again"):
        return safe_open(file, framework="numpy")


def _check_own(folder: Path, file: Path) -> None:
    """Refuses a shard that leads out of the folder; the hub's cache links to its own blobs."""
    home, found = folder.resolve(), file.resolve()
    if home.parent.name == "snapshots":
        home = home.parents[1]
    if not found.is_relative_to(home):
        raise FileError(file, f"leads out of the model's folder, to {found}; copy the file there")


def _check_types(file: Path, opened: safe_open) -> None:
    for name in sorted(opened.keys()):
        kind = opened.get_slice(name).get_dtype()
        if kind not in _TYPES and not BUFFERS.match(name):
            raise FileError(
                file,
                f"tensor {name} is stored as {kind}, which is no weight without its scale; give "
                "the model in bfloat16 or float32, or as a .gguf file",
            )


def _shards(index: Path) -> set[str]:
    """File names of the shards that an index lists."""
    shard_of = read_object(index).get("weight_map")
    if not isinstance(shard_of, dict) or not shard_of:
        raise FileError(index, "field weight_map: must name a file by tensor; download it again")
    for name, shard in shard_of.items():
        if not isinstance(shard, str) or not re.fullmatch(r"[^/\\\0]+\.safetensors", shard):
            problem = f"field weight_map.{name}: must be the name of a .safetensors file beside the"
            raise FileError(index, f"{problem} index, found {shard!r}; download it again")
    return set(shard_of.values())
