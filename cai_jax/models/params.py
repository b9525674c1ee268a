"""Parameter trees: shapes, dtypes and shardings first, then arrays."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.parallel.mesh import param_spec
from cai_jax.parallel.program import Program, abstract


def path_name(path: tuple) -> str:
    """Dotted name of a parameter's path in its module."""
    return ".".join(str(part) for part in path)


def abstract_split(build: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, nnx.State]:
    """Graph definition and abstract parameters of the module that ``build()`` makes."""
    return nnx.split(nnx.eval_shape(build))


def variable_at(params: nnx.State, *path: str) -> nnx.Variable:
    """The parameter at a path."""
    return dict(nnx.to_flat_state(params))[path]


def param_sharding(variable: nnx.Variable, mesh: Mesh) -> NamedSharding:
    """Where a parameter lives, from the logical axes it declares."""
    axes = variable.get_metadata("axes")
    return NamedSharding(mesh, param_spec(axes, variable.shape, mesh))


def storage_dtype(variable: nnx.Variable, dtype: jnp.dtype) -> jnp.dtype:
    """The type a parameter is kept in where products are in ``dtype``.

    Projections and tables are in that type. Norms, biases and heads stay as they are: they enter
    float32 sums, and a rounded one would make another function of the model than was trained.
    """
    stacked = "layers" in variable.get_metadata("axes")
    return dtype if len(variable.shape) - stacked > 1 else variable.dtype


def on_mesh(abstract: nnx.State, mesh: Mesh, dtype: jnp.dtype | None = None) -> nnx.State:
    """Abstract parameters sharded over the mesh; with ``dtype``, in the type they are stored in."""

    def shard(variable: nnx.Variable) -> nnx.Variable:
        shape, kind = variable.shape, storage_dtype(variable, dtype) if dtype else variable.dtype
        sharding = param_sharding(variable, mesh)
        return variable.replace(jax.ShapeDtypeStruct(shape, kind, sharding=sharding))

    return map_variables(shard, abstract)


def constrain_params(state: nnx.State) -> nnx.State:
    """Constrains parameters, or their gradients, to their shardings under ``jax.set_mesh``.

    Without it the compiler sums whole gradients on every device before each takes its part.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return state

    def pin(variable: nnx.Variable) -> nnx.Variable:
        spec = param_spec(variable.get_metadata("axes"), variable.shape, mesh)
        return variable.replace(jax.lax.with_sharding_constraint(variable.get_value(), spec))

    return map_variables(pin, state)


def resharder(params: nnx.State, mesh: Mesh, dtype: jnp.dtype) -> Program:
    """A program that moves parameters to another mesh over the same devices.

    Cast once, weights are half as much to read at every token of sampling.

    Args:
      params: as they are; may be abstract.
      mesh: where they go.
      dtype: of matmuls that they are stored for there.
    """
    shardings = map_variables(lambda v: v.replace(param_sharding(v, mesh)), params)
    move = jax.jit(partial(cast, dtype=dtype), out_shardings=shardings)
    return Program("weights to the sampler", move, (abstract(params),))


def cast(params: nnx.State, dtype: jnp.dtype) -> nnx.State:
    """Parameters as they are kept for products in ``dtype``."""
    return map_variables(lambda v: v.replace(v.get_value().astype(storage_dtype(v, dtype))), params)


def map_variables(change: Callable[[nnx.Variable], nnx.Variable], state: nnx.State) -> nnx.State:
    """The state with every variable changed."""
    return nnx.from_flat_state([(path, change(v)) for path, v in nnx.to_flat_state(state)])


def initializer(build: Callable[[], nnx.Module], wanted: Any, mesh: Mesh) -> Program:
    """A program that initialises the parameters that ``wanted`` (an nnx filter) picks.

    Args:
      build: makes the module; parameters outside ``wanted`` are never materialised.
      wanted: for example ``(LoRAParam, HeadParam)``.
      mesh: that the parameters are sharded over.
    """
    picked, _ = nnx.split_state(abstract_split(build)[1], wanted, ...)
    shardings = map_variables(lambda v: v.replace(param_sharding(v, mesh)), picked)

    def initialize() -> nnx.State:
        return nnx.split(build(), wanted, ...)[1]

    return Program("initial parameters", jax.jit(initialize, out_shardings=shardings), ())


def init_on_mesh(build: Callable[[], nnx.Module], wanted: Any, mesh: Mesh) -> nnx.State:
    """New parameters, sharded over the mesh; see ``initializer``."""
    return initializer(build, wanted, mesh)()


def merger(base: nnx.State, lora: nnx.State, scale: float, dtype: jnp.dtype) -> Program:
    """A program that adds low-rank updates to the parameters that they belong to.

    It takes the base, whose buffers it reuses, and the updates.

    Args:
      base: parameters of a decoder in float32; may be abstract.
      lora: its low-rank updates; may be abstract.
      scale: factor on the product of the updates' two matrices.
      dtype: of matmuls that the result is stored for.
    """
    static = {"scale": scale, "dtype": jnp.dtype(dtype)}
    merge = jax.jit(
        merge_lora,
        static_argnames=("scale", "dtype"),
        donate_argnames=("base",),
        # Stated, since the layout would be the compiler's choice otherwise.
        out_shardings=jax.tree.map(lambda x: x.sharding, base),
    )
    return Program("merge", merge, (abstract(base), abstract(lora)), static)


def merge_lora(
    base: nnx.State, lora: nnx.State, *, scale: float, dtype: jnp.dtype | None = None
) -> nnx.State:
    """Base parameters with every low-rank update added: kernel + scale * A B, per layer.

    Added in float32 and rounded once, to the storage dtype of ``dtype``; None keeps the base's.
    """
    updates = dict(nnx.to_flat_state(lora))
    out = []
    for path, variable in nnx.to_flat_state(base):
        a, b = (updates.get((*path[:-1], part)) for part in ("lora_a", "lora_b"))
        value = variable.get_value()
        if path[-1] == "kernel" and a is not None and b is not None:
            delta = jnp.einsum("lir,lro->lio", a.get_value(), b.get_value()) * scale
            value = (value.astype(jnp.float32) + delta).astype(value.dtype)
        kind = value.dtype if dtype is None else storage_dtype(variable, dtype)
        out.append((path, variable.replace(value.astype(kind))))
    return nnx.from_flat_state(out)


def trainable_filter(lora: bool) -> Any:
    """What training changes: the low-rank updates and heads, or everything."""
    return (LoRAParam, HeadParam) if lora else nnx.Param
