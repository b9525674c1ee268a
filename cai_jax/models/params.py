"""From weight files to parameter trees on the mesh, and between parameter trees."""

import re
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cai_jax.models.config import DecoderConfig
from cai_jax.models.io.families import TensorName
from cai_jax.models.io.weights import Weights
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.parallel.mesh import param_spec

# Buffers that some checkpoints carry beside their weights.
_IGNORED = re.compile(r".*(rotary_emb\.inv_freq|attention\.(masked_)?bias)$")


def path_name(path: tuple) -> str:
    """Dotted name of a parameter's path in its module."""
    return ".".join(str(part) for part in path)


def abstract_split(build, *filters) -> tuple[nnx.GraphDef, ...]:
    """Graph definition and abstract parameter states of the module that ``build()`` makes."""
    return nnx.split(nnx.eval_shape(build), *filters)


def param_sharding(variable: nnx.Variable, mesh: Mesh) -> NamedSharding:
    """Where a parameter lives, from the logical axes it declares."""
    axes = variable.get_metadata("axes")
    return NamedSharding(mesh, param_spec(axes, variable.shape, mesh))


def kept_dtype(variable: nnx.Variable, dtype: jnp.dtype) -> jnp.dtype:
    """The type a parameter is kept in where products are in ``dtype``.

    Projections and tables are in that type. Norms, biases and heads stay as they are: they enter
    float32 sums, and a rounded one would make another function of the model than was trained.
    """
    stacked = "layers" in variable.get_metadata("axes")
    return dtype if len(variable.shape) - stacked > 1 else variable.dtype


def on_mesh(abstract: nnx.State, mesh: Mesh, dtype: jnp.dtype | None = None) -> nnx.State:
    """Abstract parameters with places on the mesh; with ``dtype``, as they are kept for it."""

    def place(variable: nnx.Variable) -> nnx.Variable:
        shape, kind = variable.shape, kept_dtype(variable, dtype) if dtype else variable.dtype
        place = param_sharding(variable, mesh)
        return variable.replace(jax.ShapeDtypeStruct(shape, kind, sharding=place))

    return map_variables(place, abstract)


def constrain_params(state: nnx.State) -> nnx.State:
    """Pins parameters, or their gradients, to their places under ``jax.set_mesh``.

    Without it the compiler sums whole gradients on every device before each takes its part.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return state

    def pin(variable: nnx.Variable) -> nnx.Variable:
        spec = param_spec(variable.get_metadata("axes"), variable.shape, mesh)
        return variable.replace(jax.lax.with_sharding_constraint(variable.get_value(), spec))

    return map_variables(pin, state)


def for_sampling(
    abstract: nnx.State, mesh: Mesh, dtype: jnp.dtype
) -> Callable[[nnx.State], nnx.State]:
    """A jitted function that moves parameters to the layout of sampling, for products in ``dtype``.

    Cast once, weights are half as much to read at every token.
    """
    places = map_variables(lambda v: v.replace(param_sharding(v, mesh)), abstract)
    return jax.jit(partial(cast, dtype=dtype), out_shardings=places)


def cast(params: nnx.State, dtype: jnp.dtype) -> nnx.State:
    """Parameters as they are kept for products in ``dtype``."""
    return map_variables(lambda v: v.replace(v.get_value().astype(kept_dtype(v, dtype))), params)


def map_variables(change: Callable[[nnx.Variable], nnx.Variable], state: nnx.State) -> nnx.State:
    """The state with every variable changed."""
    return nnx.from_flat_state([(path, change(v)) for path, v in nnx.to_flat_state(state)])


def load_decoder(
    weights: Weights,
    config: DecoderConfig,
    names: dict[str, TensorName],
    abstract: nnx.State,
    mesh: Mesh,
    dtype: jnp.dtype,
    beside: Collection[str] = (),
) -> nnx.State:
    """Reads every parameter of a decoder, layer by layer, onto the mesh.

    Args:
      weights: an open weight file.
      config: of the decoder.
      names: of its family.
      abstract: abstract state of a Decoder without LoRA.
      mesh: where the parameters go.
      dtype: of products; see ``kept_dtype``.
      beside: tensors of the file that are not the decoder's.

    Raises:
      ValueError: a tensor is missing, unknown, misshapen or not finite; the message names it.
    """
    unread = {name for name in weights.names() if not _IGNORED.match(name)} - set(beside)
    loaded = []
    for path, variable in nnx.to_flat_state(abstract):
        reader = _ParamReader(weights, config, names[path_name(path)], path, tuple(variable.shape))
        unread -= set(reader.tensors)
        read = partial(reader.read, dtype=kept_dtype(variable, dtype))
        array = jax.make_array_from_callback(reader.shape, param_sharding(variable, mesh), read)
        loaded.append((path, variable.replace(array)))
    if not any(path == ("output",) for path, _ in loaded):
        unread.discard(names["output"].name)  # a tied checkpoint may store its table twice
    if unread:
        raise ValueError(
            f"{weights.path}: {len(unread)} tensors that the decoder has no place for, among them "
            f"{min(unread)}: the file is of another architecture than its config"
        )
    return nnx.from_flat_state(loaded)


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


def init_on_mesh(build, wanted: Any, mesh: Mesh) -> nnx.State:
    """Initialises only the parameters that ``wanted`` (an nnx filter) picks, placed on the mesh.

    Args:
      build: makes the module; parameters outside ``wanted`` are never materialised.
      wanted: for example ``(LoRAParam, HeadParam)``.
    """
    _, abstract, _ = abstract_split(build, wanted, ...)
    shardings = map_variables(lambda v: v.replace(param_sharding(v, mesh)), abstract)
    return jax.jit(lambda: nnx.split(build(), wanted, ...)[1], out_shardings=shardings)()


def merge_lora(base: nnx.State, lora: nnx.State, scale: float) -> nnx.State:
    """Base parameters with every low-rank update added: kernel + scale * A B, per layer."""
    updates = {path: variable for path, variable in nnx.to_flat_state(lora)}

    out = []
    for path, variable in nnx.to_flat_state(base):
        pair = [updates.get((*path[:-1], part)) for part in ("lora_a", "lora_b")]
        if path[-1] == "kernel" and pair[0] is not None:
            a, b = (v.get_value() for v in pair)
            variable = variable.replace(_merged(variable.get_value(), a, b, scale))
        out.append((path, variable))
    return nnx.from_flat_state(out)


@jax.jit
def _merged(kernel: jax.Array, a: jax.Array, b: jax.Array, scale: float) -> jax.Array:
    delta = jnp.einsum("lir,lro->lio", a, b) * scale
    return (kernel.astype(jnp.float32) + delta).astype(kernel.dtype)


def trainable_filter(lora: bool) -> Any:
    """What training changes: the low-rank updates and heads, or everything."""
    return (LoRAParam, HeadParam) if lora else nnx.Param
