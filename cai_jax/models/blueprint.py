"""Modules at rest: a graph definition and a tree of parameters, abstract first."""

from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue, PreferenceModel
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import abstract_split, on_mesh, trainable_filter

DECODER = "decoder"  # attribute that holds the decoder of a module with a head


@dataclass(frozen=True)
class Origin:
    """Where parameters come from, for errors that name it.

    Attributes:
      name: a noun.
      stage: of a run, that trained them last; empty: none did.
    """

    name: str = "the model"
    stage: str = ""

    @property
    def remedy(self) -> str:
        """What to do where it gives what is not finite."""
        if self.stage:
            return f"its training diverged, or its files were changed: run {self.stage} again"
        return "its weights are damaged, or too large for the type that it computes in"


UNKNOWN = Origin()


@dataclass(frozen=True)
class Model:
    """A module at rest: ``nnx.merge(graph, params)`` is the module.

    Parameters are arrays, or abstract: shapes, dtypes and shardings.
    """

    graph: nnx.GraphDef
    params: nnx.State
    origin: Origin = UNKNOWN

    @cached_property
    def size(self) -> int:
        """Number of parameters, low-rank updates and heads not counted."""
        _, rest = nnx.split_state(self.params, (LoRAParam, HeadParam), ...)
        return int(sum(np.prod(x.shape) for x in jax.tree.leaves(rest)))


@dataclass(frozen=True)
class Blueprint:
    """All that decides a module's parameters and how it computes.

    Attributes:
      module: what is built.
      config: of its decoder.
      dtype: of activations and matmuls.
      lora: adds low-rank updates; None: none.
      frozen_layers: lower layers that no gradient passes through.
    """

    module: type[Decoder | PreferenceModel | PolicyWithValue]
    config: DecoderConfig
    dtype: jnp.dtype
    lora: LoRAConfig | None = None
    frozen_layers: int = 0

    def build(self, seed: int = 0) -> nnx.Module:
        """The module with new parameters."""
        rngs = nnx.Rngs(seed)
        return self.module(self.config, self.lora, self.dtype, self.frozen_layers, rngs=rngs)

    @property
    def graph(self) -> nnx.GraphDef:
        """Its graph definition."""
        return abstract_split(self.build)[0]

    def abstract(self, mesh: Mesh, dtype: jnp.dtype | None = None) -> Model:
        """The module as it runs: low-rank updates and heads in float32, the rest for ``dtype``.

        Args:
          mesh: that its parameters are sharded over.
          dtype: of matmuls that the parameters are stored for; None: the blueprint's own.
        """
        graph, params = abstract_split(self.build)
        trained, rest = nnx.split_state(params, (LoRAParam, HeadParam), ...)
        rest = on_mesh(rest, mesh, self.dtype if dtype is None else dtype)
        return Model(graph, nnx.merge_state(on_mesh(trained, mesh), rest))

    def abstract_trainable(self, mesh: Mesh) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
        """Graph, trained parameters in float32 and frozen ones in the storage dtype, abstract."""
        trained = trainable_filter(self.lora is not None)
        graph, params = abstract_split(self.build)
        params, frozen = nnx.split_state(params, trained, ...)
        return graph, on_mesh(params, mesh), on_mesh(frozen, mesh, self.dtype)


def inside(name: str, params: nnx.State) -> nnx.State:
    """The parameters below one attribute, ``under``'s inverse."""
    flat = nnx.to_flat_state(params)
    return nnx.from_flat_state([(path[1:], v) for path, v in flat if path[0] == name])


def under(name: str, params: nnx.State) -> nnx.State:
    """Parameters as those of a module that holds theirs as an attribute."""
    return nnx.from_flat_state([((name, *path), v) for path, v in nnx.to_flat_state(params)])
