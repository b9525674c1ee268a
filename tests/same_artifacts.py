"""What two runs left, compared to the last bit; what differs between any two is passed over."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorflow as tf

# Times, what holds them, and where a run lies and what of it was asked for.
OWN = ("seconds", "compile_seconds", "tokens_per_second", "sha256", "files", "config")
CHECKPOINT = "_CHECKPOINT_METADATA"  # of Orbax: its folder is an array tree


def differences(one: Path, other: Path) -> list[str]:
    """Artifacts of two runs, or of two stages, that are not the same to the last bit."""
    names = [{p.relative_to(folder) for p in artifacts(folder)} for folder in (one, other)]
    found = [f"{name}: of one of them" for name in sorted(names[0] ^ names[1])]
    for name in sorted(names[0] & names[1]):
        if content(one / name, one) != content(other / name, other):
            found.append(f"{name}: differs")
    return found


def artifacts(folder: Path) -> Iterator[Path]:
    """Files, and folders of arrays or of events, which are read as a whole."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") and path.name.endswith((".partial", ".progress", ".old")):
            yield path  # of a finished run there is none
        elif path.name.startswith(".") or path.name == "index.html":  # has times
            continue
        elif path.is_file() or path.name == "tensorboard" or (path / CHECKPOINT).exists():
            yield path
        else:
            yield from artifacts(path)


def content(path: Path, root: Path) -> Any:
    """What must be the same."""
    if (path / CHECKPOINT).exists():
        with ocp.StandardCheckpointer() as checkpointer:
            here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
            found = checkpointer.metadata(path.absolute()).item_metadata.tree
            like = {
                n: jax.ShapeDtypeStruct(m.shape, m.dtype, sharding=here) for n, m in found.items()
            }
            tree = checkpointer.restore(path.absolute(), like)
        return {name: np.asarray(array).tobytes() for name, array in tree.items()}
    if path.name == "tensorboard":
        events = [
            e for f in sorted(path.iterdir()) for e in tf.compat.v1.train.summary_iterator(str(f))
        ]
        values = [
            (e.step, v.tag, v.tensor.SerializeToString()) for e in events for v in e.summary.value
        ]
        return sorted(values)
    if path.suffix == ".json":
        text = path.read_text(encoding="utf-8").replace(str(root), "")
        return without_own(json.loads(text))
    if ".tfrecord" in path.name:  # features are written in an order of the process
        return [tf.train.Example.FromString(row.numpy()) for row in tf.data.TFRecordDataset(path)]
    return path.read_bytes()


def without_own(tree: Any) -> Any:
    """JSON without what differs between any two runs."""
    if isinstance(tree, dict):
        return {k: without_own(v) for k, v in tree.items() if k not in OWN}
    return [without_own(v) for v in tree] if isinstance(tree, list) else tree
