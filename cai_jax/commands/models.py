"""Models as small commands open them: flags of the devices and the dtype."""

from dataclasses import replace

import jax
import jax.numpy as jnp
from absl import flags
from jax.sharding import Mesh

from cai_jax.config import naming
from cai_jax.generation.scoring import Scorer
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import Execution
from cai_jax.models.io.load import (
    load_policy,
    load_preference_model,
    policy_blueprint,
    preference_blueprint,
)
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel.devices import attention_kernel, compute_dtype
from cai_jax.parallel.mesh import make_mesh
from cai_jax.prompts.chat import open_chat
from cai_jax.rl.reward import Reward

_DTYPE = flags.DEFINE_enum(
    "compute_dtype", "float32", ["auto", "float32", "bfloat16"], "of weights and activations"
)
_MESH = flags.DEFINE_list("mesh", ["1", "-1", "1"], "devices for data,fsdp,tensor")
BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "rows at a time", lower_bound=1)


def open_policy(source: ModelSource, mesh: Mesh) -> Model:
    """A language model in --compute_dtype.

    Raises:
      ValueError: the source is a preference model.
    """
    return load_policy(source, _as_here(policy_blueprint(source, dtype())), mesh)


def open_preference_model(source: ModelSource, mesh: Mesh) -> Model:
    """A preference model in --compute_dtype."""
    return load_preference_model(source, _as_here(preference_blueprint(source, dtype())), mesh)


def open_judge(source: ModelSource, mesh: Mesh) -> Scorer:
    """Scores by a preference model."""
    # transformers reads a classifier's score at the last token that is not padding.
    padding = None if source.checkpoints else source.hugging_face_fields.get("pad_token_id")
    model = open_preference_model(source, mesh)
    return Scorer(model, mesh, BATCH_SIZE.value, padding_id=padding)


def open_reward(source: ModelSource, mesh: Mesh) -> Reward:
    """A preference model with its own chat format and normalisation."""
    scorer = open_judge(source, mesh)
    chat = open_chat(source)
    return Reward(scorer, lambda: chat, *source.normalisation, unusable_score=0.0)


def open_mesh() -> Mesh:
    """The devices as --mesh lays them out."""
    try:
        data, fsdp, tensor = map(int, _MESH.value)
    except ValueError:
        raise ValueError(
            f"--mesh: three whole numbers are wanted, found {','.join(_MESH.value)}"
        ) from None
    with naming("--mesh"):
        return make_mesh(data, fsdp, tensor)


def dtype() -> jnp.dtype:
    """What --compute_dtype says."""
    return compute_dtype(_DTYPE.value, jax.default_backend())


def _as_here(blueprint: Blueprint) -> Blueprint:
    """The blueprint, run with the attention kernel of these devices."""
    execution = Execution(attention_kernel("auto", jax.default_backend()))
    return replace(blueprint, config=replace(blueprint.config, execution=execution))
