"""Checkpoints of our own: a folder with ``model.json`` and the changed parameters.

A checkpoint names the model it was trained from (``base``) and holds only the parameters that
training changed: low-rank updates and heads, or the whole model.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import orbax.checkpoint as ocp
from flax import nnx

from cai_jax.models.config import LoRAConfig
from cai_jax.models.params import path_name
from cai_jax.parallel.hosts import write_text

MODEL_FILE = "model.json"


@dataclass(frozen=True)
class CheckpointInfo:
    """Contents of ``model.json``."""

    kind: str  # "policy" or "preference"
    base: str  # source of the model below it; paths are whole, or relative to this folder
    lora: LoRAConfig | None  # None: all parameters were trained
    score_mean: float = 0.0  # preference models: normalisation of scores
    score_std: float = 1.0


def save_checkpoint(folder: Path, info: CheckpointInfo, trained: nnx.State) -> None:
    """Writes a checkpoint; ``model.json`` last, so that a folder with it is complete.

    All hosts call this: each writes the arrays of its own devices, below the same folder.
    """
    arrays = {path_name(path): v.get_value() for path, v in nnx.to_flat_state(trained)}
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder.absolute() / "params", arrays)
    write_text(folder / MODEL_FILE, json.dumps(asdict(info), indent=2) + "\n")


def base_of(source: str, folder: Path, workdir: Path) -> str:
    """A source as a checkpoint in ``folder`` names it.

    What lies in the workdir is named relative to the folder, and moves with it; all else by its
    whole path, for finished stages are taken into other workdirs.
    """
    if source.startswith(("pypi:", "hf:")):
        return source
    path = Path(source).expanduser().resolve()
    if path.is_relative_to(workdir.resolve()):
        return os.path.relpath(path, folder.resolve())
    return str(path)


def read_info(folder: Path) -> CheckpointInfo:
    """Reads ``model.json``.

    Raises:
      ValueError: the file is not one of ours.
    """
    try:
        fields = json.loads((folder / MODEL_FILE).read_text(encoding="utf-8"))
        lora = fields.pop("lora")
        return CheckpointInfo(lora=LoRAConfig(**lora) if lora else None, **fields)
    except (json.JSONDecodeError, TypeError, KeyError) as error:
        raise ValueError(f"{folder / MODEL_FILE}: not a cai_jax checkpoint ({error})") from error


def restore_trained(folder: Path, wanted: nnx.State) -> nnx.State:
    """Reads the trained parameters.

    Args:
      folder: the checkpoint.
      wanted: exactly the parameters that were trained, abstract; the layout need not be the one
        that they were written from.

    Raises:
      ValueError: the checkpoint holds other parameters.
    """
    flat = nnx.to_flat_state(wanted)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            arrays = checkpointer.restore(
                folder.absolute() / "params", {path_name(path): v.get_value() for path, v in flat}
            )
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{folder}: does not hold the parameters that this version of cai_jax looks for; "
            f"train it again ({str(error).partition(chr(10))[0]})"
        ) from error
    return nnx.from_flat_state([(path, v.replace(arrays[path_name(path)])) for path, v in flat])
