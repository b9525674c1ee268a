"""Finished rows of a stage, as TFDS datasets that anything can open.

``tfds.builder_from_directory(FOLDER / "1.0.0")`` reads them back; so does ``read_records``, as the
dataclass that they were written from.
"""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
from absl import logging as absl_logging

from cai_jax import tf
from cai_jax.data.rows import Row
from cai_jax.parallel.hosts import is_main, sync
from cai_jax.prompts.messages import Dialogue, Message
from cai_jax.storage.sealed import check_whole

VERSION = "1.0.0"
SPLIT = "train"
R = TypeVar("R", bound=Row)


@dataclass(frozen=True)
class Part:
    """The folder of a dataset of records, and how often it is drawn while all parts last."""

    folder: Path
    rate: float


@dataclass(frozen=True)
class _Column:
    """How the values of an annotation are stored, and how they come back."""

    feature: Callable[[], Any]
    decode: Callable[[Any], Any]
    encode: Callable[[Any], Any] = lambda value: value


def _text(value: bytes) -> str:
    return value.decode("utf-8")


def _encoded_dialogue(dialogue: Dialogue) -> list[dict[str, str]]:
    return [{"role": message.role, "text": message.text} for message in dialogue]


def _dialogue(columns: Mapping[str, np.ndarray]) -> Dialogue:
    pairs = zip(columns["role"], columns["text"], strict=True)
    return tuple(Message(_text(role), _text(text)) for role, text in pairs)


def _numbers(values: np.ndarray) -> tuple:
    return tuple(values.tolist())


def _vector(dtype: type[np.generic]) -> Any:
    """Of any length; TFDS encodes a ``Sequence`` number by number, nine times slower."""
    return tf.tfds.features.Tensor(shape=(None,), dtype=dtype)


_COLUMNS: dict[Any, _Column] = {
    str: _Column(lambda: tf.tfds.features.Text(), _text),
    int: _Column(lambda: tf.tfds.features.Scalar(np.int32), int),
    float: _Column(lambda: tf.tfds.features.Scalar(np.float32), float),
    bool: _Column(lambda: tf.tfds.features.Scalar(np.bool_), bool),
    tuple[int, ...]: _Column(lambda: _vector(np.int32), _numbers),
    tuple[float, ...]: _Column(lambda: _vector(np.float32), _numbers),
    tuple[str, ...]: _Column(
        lambda: tf.tfds.features.Sequence(tf.tfds.features.Text()),
        lambda values: tuple(map(_text, values)),
    ),
    Dialogue: _Column(
        lambda: tf.tfds.features.Sequence(
            {"role": tf.tfds.features.Text(), "text": tf.tfds.features.Text()}
        ),
        _dialogue,
        _encoded_dialogue,
    ),
}


def write_records(folder: Path, rows: Sequence[R], kind: type[R]) -> None:
    """Writes rows of one kind, each with a unique ``id``, as the dataset of a folder.

    TFDS writes to a temporary folder and renames it, so a dataset that exists is whole. Of several
    hosts the main one writes, and the others wait until it has.

    Raises:
      ValueError: there are no rows.
    """
    if not rows:
        raise ValueError(f"{folder}: there are no records to write")
    if is_main():
        columns = _columns(kind)
        encode = lambda row: {n: c.encode(getattr(row, n)) for n, c in columns.items()}
        tf.tfds.disable_progress_bar()
        with _without_notices():
            tf.tfds.dataset_builders.store_as_tfds_dataset(
                name=folder.name,
                version=VERSION,
                features=tf.tfds.features.FeaturesDict(
                    {n: c.feature() for n, c in columns.items()}
                ),
                split_datasets={SPLIT: [(row.id, encode(row)) for row in rows]},
                data_dir=folder.parent,
            )
    sync(f"records {folder.name}")


@contextmanager
def _without_notices() -> Iterator[None]:
    """Without TFDS's words on a download that there is not, and on a folder that is not full yet.

    What goes wrong is raised.
    """
    verbosity = absl_logging.get_verbosity()
    absl_logging.set_verbosity(absl_logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        absl_logging.set_verbosity(verbosity)


def read_records(folder: Path, kind: type[R]) -> list[R]:
    """All rows of a folder that ``write_records`` wrote, in order of id.

    Where an earlier version wrote it, what it did not know yet is as by default.

    Raises:
      ValueError: the folder holds rows of another kind, or is not what was written.
    """
    check_whole(folder)
    builder = tf.tfds.builder_from_directory(folder / VERSION)
    stored = set(builder.info.features)
    # A default is an attribute of the class.
    columns = {n: c for n, c in _columns(kind).items() if n in stored or not hasattr(kind, n)}
    if odd := set(columns) ^ stored:
        raise ValueError(
            f"{folder}: its rows and a {kind.__name__} differ in the field {min(odd)!r}; delete "
            "the folder, and run its stage again"
        )
    rows = [
        kind(**{name: column.decode(row[name]) for name, column in columns.items()})
        for row in tf.tfds.as_numpy(builder.as_dataset(split=SPLIT))
    ]
    return sorted(rows, key=lambda row: row.id)


def _columns(kind: type) -> dict[str, _Column]:
    """The columns of a row, by field.

    Raises:
      TypeError: an annotation that rows cannot have.
    """
    hints = get_type_hints(kind)
    for name, hint in hints.items():
        if hint not in _COLUMNS:
            raise TypeError(f"{kind.__name__}.{name}: {hint} cannot be stored; see data/rows.py")
    return {name: _COLUMNS[hint] for name, hint in hints.items()}
