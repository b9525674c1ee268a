"""The jitted steps of a run with abstract inputs: what can be compiled where no weights are.

Every stage hands out its steps as ``steps(plan)``: the functions that it calls, with shapes and
places of what it will call them with.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from cai_jax.config import ConfigError, LoRAFields, PMTrainConfig, SLTrainConfig
from cai_jax.generation.engine import generate_batch
from cai_jax.generation.sampling import Sampling
from cai_jax.learning.losses import Batch
from cai_jax.learning.train import LossSum, Trainable, abstract_state, train_step
from cai_jax.models.config import LoRAConfig
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.load import Model, decoder_builder
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import abstract_split, on_mesh, trainable_filter
from cai_jax.parallel.mesh import batch_multiple, partition_spec
from cai_jax.stages.run import Run
from cai_jax.stages.training import optimizer_of


@dataclass(frozen=True)
class Step:
    """A jitted function and what it is called with.

    Attributes:
      name: stage and step.
      function: jitted.
      args: arrays, abstract and placed.
      static: keyword arguments that are compiled in.
      mesh: the layout it runs under; None: it says itself where everything goes.
      tokens: that one call samples, or else reads, over all devices, padding included.
      operations: of one call, over all devices: two a parameter and token that are multiplied, and
        what the gradients of those that are trained take; nothing that is computed again.
      mend: what to change where its temporaries do not fit.
      beside: arrays that lie on the devices while it runs, and are not among its arguments.
      offload: what would move some of ``beside`` to the hosts' memory; empty: nothing.
      twice: arguments that are others of its arguments once more, and take no memory of their own.
    """

    name: str
    function: Callable
    args: tuple
    static: dict[str, Any]
    mesh: Mesh | None
    tokens: int
    operations: float
    mend: str
    beside: tuple = ()
    twice: tuple = ()
    offload: str = ""

    def trace(self) -> Any:
        """The traced step; ``lower()`` of it is for the platform of its mesh."""
        with self.layout():
            return self.function.trace(*self.args, **self.static)

    def layout(self) -> AbstractContextManager:
        """The mesh, as a context."""
        return jax.set_mesh(self.mesh) if self.mesh else nullcontext()


@dataclass(frozen=True)
class Plan:
    """Abstract models and batches of a run."""

    run: Run

    def source(self, name: str = "") -> ModelSource:
        """A model source, of which the config alone is read.

        Raises:
          ConfigError: it would have to be downloaded, and is not the run's own model.
        """
        architecture = self.run.config.model.architecture
        if name.startswith("hf:"):
            raise ConfigError(
                f"model source {name}: compile ahead downloads no weights; give a folder with that "
                "model's config.json instead"
            )
        if name or not architecture:
            return self.run.source(name)
        return ModelSource(Path(architecture), execution=self.run.execution)

    def parameters(self, source: ModelSource) -> int:
        """Parameters of a decoder."""
        _, params = abstract_split(decoder_builder(source, self.run.dtype))
        return sum(x.size for x in jax.tree.leaves(params))

    def reading(self, source: ModelSource, tokens: int) -> float:
        """Operations of a decoder that reads tokens: two a parameter."""
        return 2.0 * self.parameters(source) * tokens

    def training(self, source: ModelSource, tokens: int, lora: LoRAFields, layers: int) -> float:
        """Operations of an update: those of reading, and of gradients.

        Through every layer above the lowest trained one pass gradients of activations, as costly as
        reading; those of weights are as costly once more, and low-rank updates have next to none.

        Args:
          source: of the decoder.
          tokens: that are read.
          lora: of the stage.
          layers: how many are trained; 0 is all.
        """
        share = layers / source.config.num_layers if layers else 1.0
        return self.reading(source, tokens) * (1 + share * (1 if lora.rank else 2))

    def decoder(
        self, source: ModelSource, mesh: Mesh, lora: LoRAConfig | None = None, frozen: int = 0
    ) -> Model:
        """A decoder in the compute type; low-rank updates, kept apart, are float32."""
        graph, params = abstract_split(decoder_builder(source, self.run.dtype, lora, frozen))
        return Model(graph, self._placed(params, mesh))

    def preference_model(self, source: ModelSource, mesh: Mesh, lora: LoRAConfig | None) -> Model:
        """As ``decoder``."""
        run = self.run

        def build() -> PreferenceModel:
            return PreferenceModel(source.config, lora, run.dtype, rngs=nnx.Rngs(0))

        graph, params = abstract_split(build)
        return Model(graph, self._placed(params, mesh))

    def trainable(self, build: Callable[[], nnx.Module], lora: LoRAConfig | None) -> Trainable:
        """As ``make_trainable`` makes it: float32 where it is trained."""
        graph, params, frozen = abstract_split(build, trainable_filter(lora is not None), ...)
        mesh = self.run.mesh
        return Trainable(graph, on_mesh(params, mesh), on_mesh(frozen, mesh, self.run.dtype))

    def rows(self, mesh: Mesh, *shape: int, dtype: Any = jnp.int32) -> jax.ShapeDtypeStruct:
        """An array whose leading axis is batch."""
        spec = partition_spec(("batch", *(None,) * (len(shape) - 1)), shape, mesh)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=NamedSharding(mesh, spec))

    def train_step(
        self,
        name: str,
        settings: SLTrainConfig | PMTrainConfig,
        source: ModelSource,
        trainable: Trainable,
        loss_sum: LossSum,
        batch: Batch,
    ) -> Step:
        """The update of a stage that trains on records."""
        optimizer = optimizer_of(settings)
        static = {
            "loss_sum": loss_sum,
            "graph": trainable.graph,
            "optimizer": optimizer,
            "micro_batches": settings.micro_batches,
        }
        args = (abstract_state(trainable.params, optimizer), trainable.frozen, batch)
        tokens = sum(x.size for key, x in batch.items() if key in ("tokens", "first", "second"))
        operations = self.training(source, tokens, settings.lora, settings.trained_layers)
        mend = f"raise config.{name}.micro_batches or the number of chips"
        return Step(
            f"{name}: update", train_step, args, static, self.run.mesh, tokens, operations, mend
        )

    def generate(
        self,
        name: str,
        source: ModelSource,
        model: Model,
        batch_size: int,
        prompt_tokens: int,
        new_tokens: int,
        sampling: Sampling,
    ) -> Step:
        """Sampling of completions."""
        mesh = self.run.decode_mesh
        b = rounded_up(batch_size, batch_multiple(mesh))
        rows = self.rows(mesh, b, prompt_tokens)
        keys = self.rows(mesh, b, 2, dtype=jnp.uint32)
        static = {"max_new_tokens": new_tokens, "sampling": sampling, "stop_ids": source.stop_ids}
        args = (model.graph, model.params, rows, rows, keys)
        operations = self.reading(source, b * (prompt_tokens + new_tokens))
        mend = "raise config.mesh.decode_tensor, or lower "
        mend += f"config.{'rl' if name.startswith('rl') else 'generation'}.batch_size"
        return Step(name, generate_batch, args, static, mesh, b * new_tokens, operations, mend)

    def score(
        self,
        name: str,
        source: ModelSource,
        function: Callable,
        model: Model,
        mesh: Mesh,
        length: int,
        **static: Any,
    ) -> Step:
        """A step of the scorer over rows of some length."""
        b = rounded_up(self.run.config.generation.score_batch_size, batch_multiple(mesh))
        rows = self.rows(mesh, b, length)
        args = (model.graph, model.params, rows, rows)
        operations = self.reading(source, b * length)
        mend = "lower config.generation.score_batch_size"
        return Step(name, function, args, static, mesh, b * length, operations, mend)

    def beside(self, step: Step, *stay: Any, waits: tuple = ()) -> Step:
        """The step, with what lies on the devices meanwhile.

        Args:
          step: of a stage.
          stay: arrays that stay.
          waits: arrays that ``config.rl.offload`` moves to the hosts' memory.
        """
        if self.run.config.rl.offload:
            return replace(step, beside=stay)
        offload = "config.rl.offload=True" if waits else ""
        return replace(step, beside=(*stay, *waits), offload=offload)

    def _placed(self, params: nnx.State, mesh: Mesh) -> nnx.State:
        trained, rest = nnx.split_state(params, (LoRAParam, HeadParam), ...)
        return nnx.merge_state(on_mesh(trained, mesh), on_mesh(rest, mesh, self.run.dtype))


def rounded_up(size: int, multiple: int) -> int:
    """The least multiple that is not smaller."""
    return -(-size // multiple) * multiple
