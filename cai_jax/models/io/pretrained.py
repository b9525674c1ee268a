"""From weight files to parameter trees."""

from collections.abc import Collection
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from cai_jax.models.config import DecoderConfig
from cai_jax.models.io.families import TensorName
from cai_jax.models.io.weights import BUFFERS, Weights
from cai_jax.models.params import path_name


def read_pretrained(
    weights: Weights,
    config: DecoderConfig,
    names: dict[str, TensorName],
    wanted: nnx.State,
    others: Collection[str] = (),
) -> nnx.State:
    """Fills the abstract parameters of a decoder from a weight file, layer by layer.

    Args:
      weights: an open weight file.
      config: of the decoder.
      names: of its family.
      wanted: abstract parameters of a Decoder without LoRA: shapes, storage dtypes, shardings.
      others: tensors of the file that are not the decoder's.

    Raises:
      ValueError: a tensor is missing, unknown, misshapen or not finite; the message names it.
    """
    unread = {name for name in weights.names() if not BUFFERS.match(name)} - set(others)
    filled = []
    for path, variable in nnx.to_flat_state(wanted):
        leaf = variable.get_value()
        reader = _ParamReader(weights, config, names[path_name(path)], path, tuple(leaf.shape))
        unread -= set(reader.tensors)
        read = partial(reader.read, dtype=leaf.dtype)
        array = jax.make_array_from_callback(reader.shape, leaf.sharding, read)
        filled.append((path, variable.replace(array)))
    if not any(path == ("output",) for path, _ in filled):
        unread.discard(names["output"].name)  # a tied checkpoint may store its table twice
        _check_tied(weights, names)
    if unread:
        raise ValueError(
            f"{weights.path}: {len(unread)} tensors that the decoder has no place for, among them "
            f"{min(unread)}: the file is of another architecture than its config"
        )
    return nnx.from_flat_state(filled)


def _check_tied(weights: Weights, names: dict[str, TensorName]) -> None:
    """Refuses an output projection that would be lost, since the config says that it is tied."""
    table, output = names["embedding"].name, names["output"].name
    if not weights.names() >= {table, output}:
        return
    if not np.array_equal(weights.read(table), weights.read(output)):
        raise ValueError(
            f"{weights.path}: tie_word_embeddings is true in config.json, but {output} is not "
            f"{table}; set it to false if the model has an output projection of its own"
        )


class _ParamReader:
    """Reads any slice of one of our parameters, one tensor of the file in memory at a time."""

    def __init__(
        self,
        weights: Weights,
        config: DecoderConfig,
        name: TensorName,
        path: tuple,
        shape: tuple[int, ...],
    ):
        self.weights, self.config, self.part, self.shape = weights, config, name.part, shape
        self.transposed = path[-1] == "kernel"
        self.stacked = ".N." in name.name
        layers = range(shape[0]) if self.stacked else ["N"]
        self.tensors = [name.name.replace(".N.", f".{i}.") for i in layers]
        self.checked: set[str] = set()

    def read(self, index: tuple[slice, ...], dtype: jnp.dtype) -> np.ndarray:
        """The slice that one device holds, in the type it is kept in."""
        if not self.stacked:
            return self._tensor(self.tensors[0])[index].astype(dtype)
        return np.stack([self._tensor(t)[index[1:]].astype(dtype) for t in self.tensors[index[0]]])

    def _tensor(self, name: str) -> np.ndarray:
        try:
            array = self.weights.read(name)
        except KeyError:
            raise ValueError(
                f"{self.weights.path}: tensor {name} is missing: the file is incomplete or of "
                "another architecture than its config"
            ) from None
        if self.part is not None:
            array = self._own_part(name, array)
        array = array.T if self.transposed else array
        if name not in self.checked:
            self._check(name, array)
        return array

    def _own_part(self, name: str, array: np.ndarray) -> np.ndarray:
        heads, size, rest = self.config.num_heads, self.config.head_dim, array.shape[1:]
        if array.shape[0] != heads * 3 * size:
            raise ValueError(
                f"{self.weights.path}: tensor {name} has shape {array.shape}, but the model's "
                f"config asks for {(heads * 3 * size, *rest)}"
            )
        return array.reshape(heads, 3, size, *rest)[:, self.part].reshape(-1, *rest)

    def _check(self, name: str, array: np.ndarray) -> None:
        shape = self.shape[1:] if self.stacked else self.shape
        if array.shape != shape:
            raise ValueError(
                f"{self.weights.path}: tensor {name} has shape {array.shape}, but the model's "
                f"config asks for {shape}"
            )
        if not np.isfinite(array).all():
            raise ValueError(f"{self.weights.path}: tensor {name} holds NaN or infinite values")
        self.checked.add(name)
