"""PEFT adapters as checkpoints: a low-rank update in ``adapter_model.safetensors``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
from flax import nnx

from cai_jax.models.config import LoRAConfig
from cai_jax.models.io.checkpoint import CheckpointInfo
from cai_jax.models.io.families import TensorName
from cai_jax.models.io.weights import open_safetensors
from cai_jax.models.params import path_name
from cai_jax.reading import FileError, parsing, read_object

ADAPTER_FILE = "adapter_config.json"
TENSORS_FILE = "adapter_model.safetensors"
PREFIX = "base_model.model."  # of PEFT's names
HEAD = f"{PREFIX}score.weight"
# Fields that change what an update is; with other values it is another method.
PLAIN: Mapping[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none",),
    "fan_in_fan_out": (False,),
    "use_rslora": (False, None),
    "use_dora": (False, None),
    "rank_pattern": ({}, None),
    "alpha_pattern": ({}, None),
}
KINDS: Mapping[str, Literal["policy", "preference"]] = {
    "CAUSAL_LM": "policy",
    "SEQ_CLS": "preference",
}


def read_adapter_info(folder: Path) -> CheckpointInfo:
    """What ``adapter_config.json`` says; ``base`` is as it stands there.

    Raises:
      ValueError: it is no plain low-rank update of a language model or classifier.
    """
    file = folder / ADAPTER_FILE
    fields = read_object(file)
    for name, plain in PLAIN.items():
        if (value := fields.get(name, plain[0])) not in plain:
            raise ValueError(f"{file}: {name} is {value!r}; only plain LoRA is read ({plain[0]!r})")
    if not isinstance(task := fields.get("task_type"), str) or task not in KINDS:
        raise ValueError(f"{file}: task_type is {task!r}; known: {', '.join(KINDS)}")
    rank: Any = fields.get("r")
    alpha: Any = fields.get("lora_alpha")
    numbers = isinstance(rank, int) and isinstance(alpha, int | float)
    if not numbers or bool in (type(rank), type(alpha)) or not 1 <= rank <= 2**16:
        raise ValueError(f"{file}: r and lora_alpha must be numbers, found {rank!r} and {alpha!r}")
    base = fields.get("base_model_name_or_path") or ""
    if not isinstance(base, str) or "\0" in base:
        raise FileError(file, f"base_model_name_or_path must be a text, found {base!r}")
    return CheckpointInfo(KINDS[task], base, LoRAConfig(rank, float(alpha)))


def restore_adapter(folder: Path, wanted: nnx.State, names: Mapping[str, TensorName]) -> nnx.State:
    """Reads a low-rank update, and the head of a preference model.

    A matmul that the adapter leaves alone gets an update of 0.

    Args:
      folder: of the adapter.
      wanted: the parameters, abstract: A is [layers, in, rank], B is [layers, rank, out].
      names: of the model's family, by our parameter path.

    Raises:
      ValueError: the adapter holds other tensors than the model has room for, or of other shapes.
    """
    file = folder / TENSORS_FILE
    tensors = _read(file)
    filled = []
    for path, variable in nnx.to_flat_state(wanted):
        abstract = variable.get_value()
        value = _taken(tensors, path, abstract.shape, names, file)
        array = jax.make_array_from_callback(value.shape, abstract.sharding, value.__getitem__)
        filled.append((path, variable.replace(array)))
    if tensors:
        raise ValueError(
            f"{file}: tensor {min(tensors)} belongs to no matmul of the model; is it an adapter of "
            "another one?"
        )
    return nnx.from_flat_state(filled)


def _taken(
    tensors: dict[str, np.ndarray],
    path: tuple[Any, ...],
    shape: tuple[int, ...],
    names: Mapping[str, TensorName],
    file: Path,
) -> np.ndarray:
    """The value of a parameter; its tensors are taken out."""
    if path == ("head", "kernel"):
        return _checked(tensors.pop(HEAD, np.zeros((1, *shape), np.float32))[0], shape, HEAD, file)
    name, part = names[path_name((*path[:-1], "kernel")).removeprefix("decoder.")]
    letter = "A" if path[-1] == "lora_a" else "B"
    module = f"{PREFIX}{name.removesuffix('.weight')}"
    value = np.zeros(shape, np.float32)
    if part is not None:  # three of ours are one of theirs: it stays in ``tensors``
        return value
    for layer in range(shape[0]):
        key = f"{module.replace('.N.', f'.{layer}.')}.lora_{letter}.weight"
        if key in tensors:
            value[layer] = _checked(tensors.pop(key).T, shape[1:], key, file)
    return value


def _checked(value: np.ndarray, shape: tuple[int, ...], name: str, file: Path) -> np.ndarray:
    if value.shape != shape:
        raise ValueError(f"{file}: tensor {name} gives {value.shape}, but the model has {shape}")
    if not np.isfinite(value).all():
        raise ValueError(f"{file}: tensor {name} holds NaN or infinite values")
    return value


def _read(file: Path) -> dict[str, np.ndarray]:
    """All tensors, in float32."""
    opened = open_safetensors(file)
    with parsing(file, "cannot be read", "copy the adapter again"):
        return {k: np.asarray(opened.get_tensor(k), np.float32) for k in sorted(opened.keys())}
