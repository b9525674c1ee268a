"""From weight files to parameter trees on the mesh, and between parameter trees."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cai_jax.models.io.weights import Weights
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.parallel.mesh import partition_spec

# Our parameter path -> Hugging Face name; N is the layer, and a kernel is stored transposed.
_HUGGING_FACE_NAMES = {
    "embedding": "model.embed_tokens.weight",
    "output": "lm_head.weight",
    "norm.scale": "model.norm.weight",
    "blocks.attention_norm.scale": "model.layers.N.input_layernorm.weight",
    "blocks.mlp_norm.scale": "model.layers.N.post_attention_layernorm.weight",
    "blocks.q.kernel": "model.layers.N.self_attn.q_proj.weight",
    "blocks.k.kernel": "model.layers.N.self_attn.k_proj.weight",
    "blocks.v.kernel": "model.layers.N.self_attn.v_proj.weight",
    "blocks.o.kernel": "model.layers.N.self_attn.o_proj.weight",
    "blocks.gate.kernel": "model.layers.N.mlp.gate_proj.weight",
    "blocks.up.kernel": "model.layers.N.mlp.up_proj.weight",
    "blocks.down.kernel": "model.layers.N.mlp.down_proj.weight",
}
# Buffers that some checkpoints carry beside their weights.
_IGNORED = re.compile(r".*rotary_emb\.inv_freq$")


def path_name(path: tuple) -> str:
    """Dotted name of a parameter's path in its module."""
    return ".".join(str(part) for part in path)


def abstract_split(build, *filters) -> tuple[nnx.GraphDef, ...]:
    """Graph definition and abstract parameter states of the module that ``build()`` makes."""
    return nnx.split(nnx.eval_shape(build), *filters)


def param_sharding(variable: nnx.Variable, mesh: Mesh) -> NamedSharding:
    """Where a parameter lives, from the logical axes it declares."""
    axes = variable.get_metadata("axes")
    return NamedSharding(mesh, partition_spec(axes, variable.shape, mesh))


def load_decoder(weights: Weights, abstract: nnx.State, mesh: Mesh, dtype: jnp.dtype) -> nnx.State:
    """Reads every parameter of a decoder, layer by layer, onto the mesh.

    Args:
      weights: an open weight file.
      abstract: abstract state of a Decoder without LoRA.
      mesh: where the parameters go.
      dtype: type they are kept in.

    Raises:
      ValueError: a tensor is missing, unknown, misshapen or not finite; the message names it.
    """
    unread = {name for name in weights.names() if not _IGNORED.match(name)}
    loaded = []
    for path, variable in nnx.to_flat_state(abstract):
        name = _HUGGING_FACE_NAMES[path_name(path)]
        layers = variable.shape[0] if ".N." in name else None
        names = [name.replace(".N.", f".{i}.") for i in range(layers)] if layers else [name]
        transpose = path[-1] == "kernel"
        shape = tuple(variable.shape[1:]) if layers else tuple(variable.shape)
        parts = []
        for tensor in names:
            parts.append(_read(weights, tensor, shape, transpose))
            unread.discard(tensor)
        array = np.stack(parts) if layers else parts[0]
        array = jax.device_put(array.astype(dtype), param_sharding(variable, mesh))
        loaded.append((path, variable.replace(array)))
    if not any(path == ("output",) for path, _ in nnx.to_flat_state(abstract)):
        unread.discard("lm_head.weight")  # a tied checkpoint may store its table twice
    if unread:
        raise ValueError(
            f"{weights.path}: {len(unread)} tensors that a Llama decoder has no place for, among "
            f"them {min(unread)}: the file is of another architecture"
        )
    return nnx.from_flat_state(loaded)


def _read(weights: Weights, name: str, shape: tuple[int, ...], transpose: bool) -> np.ndarray:
    try:
        array = weights.read(name)
    except KeyError:
        raise ValueError(
            f"{weights.path}: tensor {name} is missing: the file is incomplete or of another "
            "architecture"
        ) from None
    array = array.T if transpose else array
    if array.shape != shape:
        raise ValueError(
            f"{weights.path}: tensor {name} has shape {array.shape}, but the model's config "
            f"asks for {shape}"
        )
    if not np.isfinite(array).all():
        raise ValueError(f"{weights.path}: tensor {name} holds NaN or infinite values")
    return array


def init_on_mesh(build, wanted: Any, mesh: Mesh) -> nnx.State:
    """Initialises only the parameters that ``wanted`` (an nnx filter) picks, placed on the mesh.

    Args:
      build: makes the module; parameters outside ``wanted`` are never materialised.
      wanted: for example ``(LoRAParam, HeadParam)``.
    """
    _, abstract, _ = abstract_split(build, wanted, ...)
    shardings = jax.tree.map(
        lambda v: v.replace(param_sharding(v, mesh)),
        abstract,
        is_leaf=lambda v: isinstance(v, nnx.Variable),
    )
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
