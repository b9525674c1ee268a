"""Models ready to run: a graph definition and its parameters on the mesh."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.checkpoint import CheckpointInfo, restore_trained
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.params import (
    abstract_split,
    cast,
    load_decoder,
    merge_lora,
    param_sharding,
    trainable_filter,
)

HEAD = "score.weight"  # of transformers' sequence classifiers


@dataclass(frozen=True)
class Model:
    """A module at rest: ``nnx.merge(graph, params)`` is the module."""

    graph: nnx.GraphDef
    params: nnx.State


def decoder_builder(
    source: ModelSource,
    dtype: jnp.dtype,
    lora: LoRAConfig | None = None,
    frozen_layers: int = 0,
    seed: int = 0,
) -> Callable[[], Decoder]:
    """A function that makes the source's decoder; ``seed`` is for new parameters only."""
    return lambda: Decoder(source.config, lora, dtype, frozen_layers, rngs=nnx.Rngs(seed))


def load_merged(
    source: ModelSource, mesh: Mesh, compute_dtype: jnp.dtype, param_dtype: jnp.dtype
) -> Model:
    """A decoder with all checkpoints of the source merged into its weights.

    Merged in float32 and rounded once, as parameters are kept for products in ``param_dtype``.
    """
    graph, _ = abstract_split(decoder_builder(source, compute_dtype))
    if not source.checkpoints:
        _require(source, "policy")
        return Model(graph, _pretrained(source.path, mesh, jnp.dtype(param_dtype)))
    return Model(graph, cast(_merged_params(source, mesh), param_dtype))


def _merged_params(source: ModelSource, mesh: Mesh) -> nnx.State:
    """Float32 parameters of a decoder, its last checkpoint merged into those below it."""
    _require(source, "policy")
    if not source.checkpoints:
        return _pretrained(source.path, mesh, jnp.dtype(jnp.float32))
    trained, lora = load_update(source, mesh), source.checkpoints[-1][1].lora
    return merge_lora(_merged_params(source.below, mesh), trained, lora.scale) if lora else trained


def load_policy(
    source: ModelSource, mesh: Mesh, compute_dtype: jnp.dtype, param_dtype: jnp.dtype
) -> Model:
    """A decoder exactly as it was trained: its last low-rank update stays apart.

    Merged into bfloat16 weights, a small update would be lost to rounding.
    """
    if not source.checkpoints or not source.checkpoints[-1][1].lora:
        return load_merged(source, mesh, compute_dtype, param_dtype)
    _require(source, "policy")
    info = source.checkpoints[-1][1]
    base = load_merged(source.below, mesh, compute_dtype, param_dtype)
    graph, _ = abstract_split(decoder_builder(source, compute_dtype, info.lora))
    return Model(graph, nnx.merge_state(base.params, load_update(source, mesh)))


def load_whole(source: ModelSource, mesh: Mesh) -> tuple[nnx.State, jax.Array | None]:
    """All of a source in float32 with every update merged, for export.

    Returns:
      The decoder's parameters and, of a preference model, its head [d].
    """
    float32 = jnp.dtype(jnp.float32)
    if source.kind == "policy":
        return load_merged(source, mesh, float32, float32).params, None
    if not source.checkpoints:
        head = jnp.asarray(_classifier_head(source))
        return _pretrained(source.path, mesh, float32), head
    trained, lora = load_update(source, mesh), source.checkpoints[-1][1].lora
    decoder = inside("decoder", trained)
    if lora:
        base = load_merged(source.below, mesh, float32, float32).params
        decoder = merge_lora(base, decoder, lora.scale)
    return decoder, trained["head"]["kernel"].get_value()


def load_update(source: ModelSource, mesh: Mesh) -> nnx.State:
    """The parameters that the source's last checkpoint holds."""
    folder, info = source.checkpoints[-1]
    float32 = jnp.dtype(jnp.float32)

    def build():
        if info.kind == "preference":
            return PreferenceModel(source.config, info.lora, float32, rngs=nnx.Rngs(0))
        return Decoder(source.config, info.lora, float32, rngs=nnx.Rngs(0))

    _, trained, _ = abstract_split(build, trainable_filter(bool(info.lora)), ...)
    return restore_trained(folder, trained, mesh)


def load_preference_model(
    source: ModelSource, mesh: Mesh, compute_dtype: jnp.dtype, param_dtype: jnp.dtype
) -> tuple[Model, CheckpointInfo]:
    """A preference model: a checkpoint of pm_train, or a sequence classifier with one label.

    Raises:
      ValueError: the source is neither.
    """
    _require(source, "preference")
    last = source.checkpoints[-1][1] if source.checkpoints else None
    info = last or CheckpointInfo("preference", str(source.path), None)

    def build():
        return PreferenceModel(source.config, info.lora, compute_dtype, rngs=nnx.Rngs(0))

    graph, abstract = abstract_split(build)
    if last is None:
        head = abstract["head"]["kernel"]
        weights, sharding = _classifier_head(source), param_sharding(head, mesh)
        head.set_value(jax.make_array_from_callback(weights.shape, sharding, weights.__getitem__))
        decoder = _pretrained(source.path, mesh, jnp.dtype(param_dtype))
        return Model(graph, nnx.merge_state(abstract, under("decoder", decoder))), info
    trained = load_update(source, mesh)
    if not info.lora:
        return Model(graph, cast(trained, param_dtype)), info
    decoder = load_merged(source.below, mesh, compute_dtype, param_dtype)
    return Model(graph, nnx.merge_state(trained, under("decoder", decoder.params))), info


def inside(name: str, state: nnx.State) -> nnx.State:
    """The state of a module's attribute ``name``, as that attribute names it."""
    flat = nnx.to_flat_state(state)
    return nnx.from_flat_state([(path[1:], v) for path, v in flat if path[0] == name])


def under(name: str, state: nnx.State) -> nnx.State:
    """The state of a module as that of its parent's attribute ``name``."""
    return nnx.from_flat_state([((name, *path), v) for path, v in nnx.to_flat_state(state)])


@lru_cache(maxsize=2)
def _pretrained(path: Path, mesh: Mesh, param_dtype: jnp.dtype) -> nnx.State:
    # Stages of one run share the frozen base; nothing donates or changes these arrays.
    source = ModelSource(path)
    _, abstract = abstract_split(decoder_builder(source, param_dtype))
    names, head = source.family.names, [HEAD] if source.kind == "preference" else []
    return load_decoder(source.weights, source.config, names, abstract, mesh, param_dtype, head)


def forget_pretrained() -> None:
    """Frees pretrained weights that are kept for other stages, where training needs the memory."""
    _pretrained.cache_clear()


def _classifier_head(source: ModelSource) -> np.ndarray:
    """Float32 [d]: the one label's weights of a sequence classifier."""
    wanted = (1, source.config.d_model)
    head = source.weights.read(HEAD) if HEAD in source.weights.names() else np.zeros(0)
    if head.shape != wanted:
        raise ValueError(
            f"{source.path}: no tensor {HEAD} of shape {wanted}; a preference model is a "
            "sequence classifier with one label"
        )
    if not np.isfinite(head).all():
        raise ValueError(f"{source.path}: tensor {HEAD} holds NaN or infinite values")
    return head[0]


def _require(source: ModelSource, kind: str) -> None:
    if source.kind != kind:
        what = source.checkpoints[-1][0] if source.checkpoints else source.path
        raise ValueError(
            f"{what}: a {source.kind} model, but a {kind} model is wanted; name another source"
        )
