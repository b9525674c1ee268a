"""Finished records of a stage, as TFDS datasets that anything can open.

``tfds.builder_from_directory(FOLDER / NAME / "1.0.0")`` reads them back.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cai_jax.parallel.hosts import is_main, sync

VERSION = "1.0.0"
SPLIT = "train"

TEXT = tfds.features.Text()
INT = tfds.features.Scalar(np.int32)
FLOAT = tfds.features.Scalar(np.float32)
BOOL = tfds.features.Scalar(np.bool_)
INTS = tfds.features.Sequence(np.int32)
FLOATS = tfds.features.Sequence(np.float32)
TEXTS = tfds.features.Sequence(tfds.features.Text())


def write_records(
    folder: Path, name: str, features: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Writes rows, each with a unique ``id``, as dataset ``name`` below the folder.

    TFDS writes to a temporary folder and renames it, so a dataset that exists is whole. Of several
    hosts the main one writes, and the others wait until it has.

    Raises:
      ValueError: there are no rows.
    """
    if not rows:
        raise ValueError(f"{folder / name}: there are no records to write")
    if is_main():
        tfds.disable_progress_bar()
        tfds.dataset_builders.store_as_tfds_dataset(
            name=name,
            version=VERSION,
            features=tfds.features.FeaturesDict(dict(features)),
            split_datasets={SPLIT: [(row["id"], dict(row)) for row in rows]},
            data_dir=folder,
        )
    sync(f"records {name}")


def read_records(folder: Path, name: str) -> list[dict[str, Any]]:
    """All rows, in order of id; texts as str, arrays as NumPy."""
    builder = tfds.builder_from_directory(folder / name / VERSION)
    rows = [_plain(row) for row in tfds.as_numpy(builder.as_dataset(split=SPLIT))]
    return sorted(rows, key=lambda row: row["id"])


def _plain(row: Mapping[str, Any]) -> dict[str, Any]:
    def plain(value: Any) -> Any:
        if isinstance(value, bytes):
            return value.decode("utf-8")
        if isinstance(value, np.ndarray) and value.dtype == object:
            return [item.decode("utf-8") for item in value]
        return value.item() if isinstance(value, np.generic) else value

    return {key: plain(value) for key, value in row.items()}
