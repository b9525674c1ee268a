"""Out again: Hugging Face folders that transformers loads, and PEFT adapters."""

import json
from collections.abc import Collection, Iterator
from pathlib import Path

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
    """Parameters of a decoder without LoRA as Hugging Face stores them, one tensor at a time."""
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
            value = _joined(group, config)
        if ".N." in name:
            for layer in range(value.shape[0]):
                yield name.replace(".N.", f".{layer}."), fetch(value[layer])
        else:
            yield name, fetch(value)


def _joined(group: dict[int, jax.Array], config: DecoderConfig) -> np.ndarray:
    """Queries, keys and values [layers, h * n, ...] as one tensor [layers, h * 3 * n, ...]."""
    heads = [fetch(group[part]) for part in range(3)]
    layers, _, *rest = heads[0].shape
    split = [x.reshape(layers, config.num_heads, config.head_dim, *rest) for x in heads]
    return np.stack(split, axis=2).reshape(layers, -1, *rest)


def adapter_tensors(
    trained: nnx.State, names: dict[str, TensorName], file: Path
) -> dict[str, np.ndarray]:
    """A low-rank update as PEFT stores it: A is [rank, in], B is [out, rank]; and a head whole.

    Raises:
      ValueError: the family keeps queries, keys and values in one tensor, so that three separate
        updates are none of its own.
    """
    tensors = {}
    for path, variable in nnx.to_flat_state(trained):
        value = fetch(variable.get_value())
        if path == ("head", "kernel"):
            tensors["base_model.model.score.weight"] = value[None]
            continue
        name, part = names[path_name((*path[:-1], "kernel")).removeprefix("decoder.")]
        if part is not None:
            raise ValueError(
                f"{file}: {name} holds queries, keys and values in one, which an adapter of "
                "three separate updates does not fit; convert with --merge"
            )
        stem = name.removesuffix(".weight")
        letter = "A" if path[-1] == "lora_a" else "B"
        for layer, matrix in enumerate(value):
            module = f"base_model.model.{stem}".replace(".N.", f".{layer}.")
            tensors[f"{module}.lora_{letter}.weight"] = np.ascontiguousarray(matrix.T)
    return tensors


def adapter_config(info: CheckpointInfo, base: str, tensors: Collection[str]) -> dict:
    """adapter_config.json of PEFT."""
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
    """Writes model.safetensors, or numbered shards with an index where one would be too large.

    At most one shard is in memory. Of several hosts the main one writes; all call this, for the
    tensors come from all.
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
    where = {}
    for number, (file, names) in enumerate(written, 1):
        shard = f"model-{number:05d}-of-{len(written):05d}.safetensors"
        file.rename(folder / shard)
        where |= dict.fromkeys(names, shard)
    index = {"metadata": {"total_size": total}, "weight_map": where}
    text = json.dumps(index, indent=2) + "\n"
    (folder / "model.safetensors.index.json").write_text(text, encoding="utf-8")
