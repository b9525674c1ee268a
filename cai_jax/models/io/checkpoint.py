"""Checkpoints of our own: a folder with ``model.json`` and the changed parameters.

A checkpoint names the model it was trained from (``base``) and holds only the parameters that
training changed: low-rank updates and heads, or the whole model.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging as absl_logging
from flax import nnx
from pydantic import Field

from cai_jax.models.config import LoRAConfig
from cai_jax.models.params import path_name
from cai_jax.parallel.hosts import is_main, write_text
from cai_jax.reading import validated
from cai_jax.storage.files import resolved, without_globs
from cai_jax.storage.sealed import check_whole

MODEL_FILE = "model.json"
PARAMS = "params"


@dataclass(frozen=True)
class CheckpointInfo:
    """Contents of ``model.json``."""

    kind: Literal["policy", "preference"]
    # Source of the model below it; paths are whole, or relative to this folder.
    base: Annotated[str, Field(pattern=r"^[^\x00]*$")]
    lora: LoRAConfig | None  # None: all parameters were trained
    score_mean: float = 0.0  # preference models: normalisation of scores
    score_std: Annotated[float, Field(gt=0)] = 1.0


def save_checkpoint(folder: Path, info: CheckpointInfo, trained: nnx.State) -> None:
    """Writes a checkpoint; ``model.json`` last, so that a folder with it is complete.

    All hosts call this: each writes the arrays of its own devices, below the same folder.

    Raises:
      FloatingPointError: a parameter is NaN or infinite.
      OSError: what is on the disk is not what was written.
    """
    arrays = {path_name(path): v.get_value() for path, v in nnx.to_flat_state(trained)}
    if odd := _not_finite(arrays):
        raise FloatingPointError(
            f"{folder}: the parameter {odd} is NaN or infinite after training, and is not saved: "
            "updates were too large; lower the learning_rate of the stage"
        )
    if is_main():
        folder.mkdir(parents=True, exist_ok=True)
    # Orbax reads a path as a pattern when it merges what processes wrote.
    with (
        _without_tracebacks(),
        without_globs(folder.absolute()) as plain,
        ocp.StandardCheckpointer() as checkpointer,
    ):
        checkpointer.save(plain / PARAMS, arrays)
        checkpointer.wait_until_finished()
        found = checkpointer.metadata(plain / PARAMS).item_metadata  # None: it cannot be read
    written = {name: tuple(array.shape) for name, array in found.tree.items()} if found else {}
    if written != {name: array.shape for name, array in arrays.items()}:
        raise OSError(f"{folder}: does not hold the parameters that were written; see to the disk")
    write_text(folder / MODEL_FILE, json.dumps(asdict(info), indent=2) + "\n")


@contextmanager
def _without_tracebacks() -> Iterator[None]:
    """Orbax logs what its threads raise, such as a full disk, and raises it again at the end."""
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.FATAL)
    try:
        yield
    finally:
        absl_logging.set_verbosity(verbosity)


def _not_finite(arrays: Mapping[str, jax.Array]) -> str:
    """The first parameter that is NaN or infinite in what this host holds; empty if none is.

    NumPy looks, for to save or restore a parameter moves it between device and host anyway.
    """
    for name, array in arrays.items():
        for shard in array.addressable_shards:
            values = np.asarray(shard.data)
            # Both are NaN where one value is.
            if values.size and not np.isfinite([values.min(), values.max()]).all():
                return name
    return ""


def base_of(source: str, folder: Path, workdir: Path) -> str:
    """A source as a checkpoint in ``folder`` names it.

    What lies in the workdir is named relative to the folder, and moves with it; all else by its
    whole path, for finished stages are taken into other workdirs.
    """
    if source.startswith(("pypi:", "hf:")):
        return source
    path = resolved(source)
    if path.is_relative_to(workdir.resolve()):
        return os.path.relpath(path, folder.resolve())
    return str(path)


def read_info(folder: Path) -> CheckpointInfo:
    """Reads ``model.json``.

    Raises:
      FileError: the file is not one of ours.
    """
    return validated(CheckpointInfo, folder / MODEL_FILE)


def restore_trained(folder: Path, wanted: nnx.State) -> nnx.State:
    """Reads the trained parameters.

    Args:
      folder: the checkpoint.
      wanted: exactly the parameters that were trained, abstract; the layout need not be the one
        that they were written from.

    Raises:
      ValueError: the checkpoint holds other parameters, values that are NaN or infinite, or is not
        what was written.
    """
    check_whole(folder)
    flat = nnx.to_flat_state(wanted)
    try:
        with without_globs(folder.absolute()) as plain, ocp.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore(
                plain / PARAMS, {path_name(path): v.get_value() for path, v in flat}
            )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{folder}: does not hold the parameters that this version of cai_jax looks for; "
            f"train it again ({str(error).partition(chr(10))[0]})"
        ) from error
    if odd := _not_finite(arrays):
        raise ValueError(f"{folder}: the parameter {odd} is NaN or infinite; train it again")
    return nnx.from_flat_state([(path, v.replace(arrays[path_name(path)])) for path, v in flat])
