"""Export: Hugging Face folders that transformers loads, and PEFT adapters."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx
from safetensors.numpy import save_file

from cai_jax.models.config import DecoderConfig
from cai_jax.models.io.checkpoint import CheckpointInfo
from cai_jax.models.io.families import TensorName
from cai_jax.models.params import path_name
from cai_jax.parallel.hosts import fetch, is_main

Tensor = tuple[str, np.ndarray]


def decoder_tensors(
    params: nnx.State, names: dict[str, TensorName], config: DecoderConfig
) -> Iterator[Tensor]:
    """Parameters of a decoder without LoRA as Hugging Face stores them, one tensor at a time.

    Args:
      params: of the decoder.
      names: of its family, by our parameter path.
      config: of the decoder.

    Yields:
      Name and host array of each tensor, in the parameter's storage dtype.
    """
    parts: dict[str, dict[int, jax.Array]] = {}
    for path, variable in nnx.to_flat_state(params):
        name, part = names[path_name(path)]
        value = variable.get_value()
        if path[-1] == "kernel":
            value = value.swapaxes(-1, -2)
        if part is not None:
            group = parts.setdefault(name, {})
            group[part] = value
            if len(group) < 3:
                continue
            value = _fused(group, config)
        if ".N." in name:
            for layer in range(value.shape[0]):
                yield name.replace(".N.", f".{layer}."), fetch(value[layer])
        else:
            yield name, fetch(value)


def _fused(group: dict[int, jax.Array], config: DecoderConfig) -> np.ndarray:
    """Queries, keys and values [layers, h * n, ...] fused to [layers, h * 3 * n, ...]."""
    heads = [fetch(group[part]) for part in range(3)]
    layers, _, *rest = heads[0].shape
    split = [x.reshape(layers, config.num_heads, config.head_dim, *rest) for x in heads]
    return np.stack(split, axis=2).reshape(layers, -1, *rest)


def adapter_tensors(
    trained: nnx.State, names: dict[str, TensorName], file: Path
) -> dict[str, np.ndarray]:
    """A low-rank update as PEFT stores it: A is [rank, in], B is [out, rank]; a head is complete.

    Args:
      trained: low-rank updates, and the head of a preference model.
      names: of its family, by our parameter path.
      file: the model, named in messages.

    Raises:
      ValueError: the family fuses queries, keys and values to one tensor, for which three separate
        updates are no update.
    """
    tensors: dict[str, np.ndarray] = {}
    for path, variable in nnx.to_flat_state(trained):
        value = fetch(variable.get_value())
        if path == ("head", "kernel"):
            tensors["base_model.model.score.weight"] = value[None]
            continue
        name, part = names[path_name((*path[:-1], "kernel")).removeprefix("decoder.")]
        if part is not None:
            raise ValueError(
                f"{file}: {name} fuses queries, keys and values, and their three separate updates "
                "are no adapter of it; convert with --merge"
            )
        stem = name.removesuffix(".weight")
        letter = "A" if path[-1] == "lora_a" else "B"
        for layer, matrix in enumerate(value):
            module = f"base_model.model.{stem}".replace(".N.", f".{layer}.")
            tensors[f"{module}.lora_{letter}.weight"] = np.ascontiguousarray(matrix.T)
    return tensors


def adapter_config(info: CheckpointInfo, base: str, tensors: Collection[str]) -> dict[str, Any]:
    """Fields of PEFT's adapter_config.json.

    Args:
      info: of the checkpoint with the low-rank update.
      base: path or repository of the model that it belongs to.
      tensors: names of the adapter's tensors.

    Raises:
      ValueError: the checkpoint has no low-rank update.
    """
    if info.lora is None:
        raise ValueError("the checkpoint has no low-rank update, so it is no adapter")
    low_rank = [name for name in tensors if ".lora_" in name]
    modules = sorted({name.split(".lora_")[0].rsplit(".", 1)[1] for name in low_rank})
    policy = info.kind == "policy"
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if policy else "SEQ_CLS",
        "modules_to_save": None if policy else ["score"],
        "base_model_name_or_path": base,
        "r": info.lora.rank,
        "lora_alpha": info.lora.alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "target_modules": modules,
    }


def write_shards(
    tensors: Iterator[Tensor], folder: Path, dtype: np.dtype, shard_bytes: int
) -> None:
    """Writes model.safetensors, or numbered shards with an index if it would be too large.

    At most one shard is in memory. All hosts call this, since tensors are fetched from all; only
    the main host writes.

    Args:
      tensors: names and host arrays.
      folder: where the files go.
      dtype: storage dtype of the files.
      shard_bytes: largest size of a shard, unless one tensor exceeds it.
    """
    if not is_main():
        for _ in tensors:
            pass
        return
    folder.mkdir(parents=True, exist_ok=True)
    pending: dict[str, np.ndarray] = {}
    written: list[tuple[Path, list[str]]] = []
    size = total = 0

    def flush() -> None:
        file = folder / f".shard-{len(written)}.safetensors"
        save_file(pending, file, metadata={"format": "pt"})
        written.append((file, list(pending)))
        pending.clear()

    for name, array in tensors:
        array = np.ascontiguousarray(array.astype(dtype))
        if pending and size + array.nbytes > shard_bytes:
            flush()
            size = 0
        pending[name] = array
        size += array.nbytes
        total += array.nbytes
    flush()
    if len(written) == 1:
        written[0][0].rename(folder / "model.safetensors")
        return
    shard_of: dict[str, str] = {}
    for number, (file, names) in enumerate(written, 1):
        shard = f"model-{number:05d}-of-{len(written):05d}.safetensors"
        file.rename(folder / shard)
        shard_of |= dict.fromkeys(names, shard)
    index = {"metadata": {"total_size": total}, "weight_map": shard_of}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
