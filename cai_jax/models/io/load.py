"""Abstract models filled from files: pretrained weights and our checkpoints on top of them."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cai_jax.models.blueprint import DECODER, Blueprint, Model, inside, under
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.adapters import ADAPTER_FILE, restore_adapter
from cai_jax.models.io.checkpoint import restore_trained
from cai_jax.models.io.pretrained import read_pretrained
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import cast, map_variables, merger, variable_at
from cai_jax.parallel.program import Program

HEAD = "score.weight"  # of transformers' sequence classifiers
FLOAT32 = jnp.dtype(jnp.float32)


def policy_blueprint(source: ModelSource, dtype: jnp.dtype) -> Blueprint:
    """A decoder exactly as it was trained: its last low-rank update stays apart.

    Merged into bfloat16 weights, a small update would be lost to rounding.
    """
    return Blueprint(Decoder, source.config, dtype, source.lora)


def preference_blueprint(source: ModelSource, dtype: jnp.dtype) -> Blueprint:
    """A preference model: a checkpoint of ours, or a sequence classifier with one label."""
    return Blueprint(PreferenceModel, source.config, dtype, source.lora)


def load_policy(
    source: ModelSource,
    blueprint: Blueprint,
    mesh: Mesh,
    dtype: jnp.dtype | None = None,
    base: Model | None = None,
) -> Model:
    """A decoder as ``policy_blueprint`` describes it, or without LoRA and with all updates merged.

    Args:
      source: of the parameters.
      blueprint: of the decoder.
      mesh: that it is sharded over.
      dtype: of matmuls that its parameters are stored for; None: the blueprint's own.
      base: what the last low-rank update is of, where it is loaded already.

    Raises:
      ValueError: the source is a preference model, or its files do not hold what they should.
    """
    _require(source, "policy")
    model = blueprint.abstract(mesh, dtype)
    if blueprint.lora is None:
        return Model(model.graph, fill_merged(source, model.params), source.origin)
    update, rest = nnx.split_state(model.params, LoRAParam, ...)
    trained = _restore(source, update)
    below = base.params if base else fill_merged(source.below, rest)
    return Model(model.graph, nnx.merge_state(below, trained), source.origin)


def load_preference_model(source: ModelSource, blueprint: Blueprint, mesh: Mesh) -> Model:
    """A preference model as ``preference_blueprint`` describes it.

    Raises:
      ValueError: the source is a language model, or its files do not hold what they should.
    """
    _require(source, "preference")
    model = blueprint.abstract(mesh)
    if blueprint.lora is not None:
        trained, base = nnx.split_state(model.params, (LoRAParam, HeadParam), ...)
        trained = _restore(source, trained)
        decoder = fill_merged(source.below, inside(DECODER, base))
        params = nnx.merge_state(trained, under(DECODER, decoder))
        return Model(model.graph, params, source.origin)
    if source.checkpoints:
        trained = _restore(source, _in_float32(model.params))
        return Model(model.graph, cast(trained, blueprint.dtype), source.origin)
    head, base = nnx.split_state(model.params, HeadParam, ...)
    weights = _classifier_head(source)
    fill = lambda v: v.replace(
        jax.make_array_from_callback(v.shape, v.get_value().sharding, weights.__getitem__)
    )
    decoder = fill_merged(source, inside(DECODER, base))
    params = nnx.merge_state(map_variables(fill, head), under(DECODER, decoder))
    return Model(model.graph, params, source.origin)


def fill_merged(source: ModelSource, wanted: nnx.State) -> nnx.State:
    """Fills abstract parameters of a decoder without LoRA, all updates of the source merged.

    Merged in float32 and rounded once.
    """
    if not source.checkpoints:
        others = [HEAD] if source.kind == "preference" else []
        names = source.family.names
        return read_pretrained(source.weights, source.config, names, wanted, others)
    _require(source, "policy")
    whole = _in_float32(wanted)
    if source.lora is None:
        return cast(_restore(source, whole), _storage_dtype(wanted))
    program = merge_programs(source, wanted)[-1]
    update = _restore(source, program.args[1])
    return program(fill_merged(source.below, whole), update)


def merge_programs(source: ModelSource, wanted: nnx.State) -> list[Program]:
    """The programs by which ``fill_merged`` merges the source's low-rank updates, in order."""
    programs: list[Program] = []
    whole, dtype = _in_float32(wanted), _storage_dtype(wanted)
    mesh = jax.tree.leaves(wanted)[0].sharding.mesh
    while lora := source.lora:
        blueprint = Blueprint(Decoder, source.config, FLOAT32, lora)
        update, _ = nnx.split_state(blueprint.abstract(mesh).params, LoRAParam, ...)
        programs.append(merger(whole, update, lora.scale, dtype))
        source, dtype = source.below, FLOAT32
    return programs[::-1]


def loading_programs(source: ModelSource, params: nnx.State) -> list[Program]:
    """The programs by which a policy or preference model is loaded into abstract parameters."""
    low_rank, heads, base = nnx.split_state(params, LoRAParam, HeadParam, ...)
    decoder = inside(DECODER, base) if nnx.to_flat_state(heads) else base
    if nnx.to_flat_state(low_rank):
        return merge_programs(source.below, decoder)
    return merge_programs(source, decoder)


def load_whole(source: ModelSource, mesh: Mesh) -> tuple[nnx.State, jax.Array | None]:
    """All of a source in float32 with every update merged, for export.

    Returns:
      The decoder's parameters and, of a preference model, its head [d].
    """
    if source.kind == "policy":
        plain = Blueprint(Decoder, source.config, FLOAT32)
        return load_policy(source, plain, mesh).params, None
    model = load_preference_model(source, preference_blueprint(source, FLOAT32), mesh)
    head = variable_at(model.params, "head", "kernel").get_value()
    update, decoder = nnx.split_state(inside(DECODER, model.params), LoRAParam, ...)
    if source.lora:
        decoder = merger(decoder, update, source.lora.scale, FLOAT32)(decoder, update)
    return decoder, head


def load_update(source: ModelSource, mesh: Mesh) -> nnx.State:
    """The parameters that the source's last checkpoint holds."""
    make = preference_blueprint if source.kind == "preference" else policy_blueprint
    _, trained, _ = make(source, FLOAT32).abstract_trainable(mesh)
    return _restore(source, trained)


def _restore(source: ModelSource, wanted: nnx.State) -> nnx.State:
    """What the source's last checkpoint holds: one of ours, or a PEFT adapter."""
    folder = source.checkpoints[-1][0]
    if (folder / ADAPTER_FILE).is_file():
        return restore_adapter(folder, wanted, source.family.names)
    return restore_trained(folder, wanted)


def _in_float32(wanted: nnx.State) -> nnx.State:
    """The same abstract parameters, in float32."""

    def retyped(variable: nnx.Variable) -> nnx.Variable:
        leaf = variable.get_value()
        struct = jax.ShapeDtypeStruct(leaf.shape, FLOAT32, sharding=leaf.sharding)
        return variable.replace(struct)

    return map_variables(retyped, wanted)


def _storage_dtype(wanted: nnx.State) -> jnp.dtype:
    """The dtype of matmuls that abstract parameters are stored for."""
    return jnp.dtype(variable_at(wanted, "embedding").get_value().dtype)


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
