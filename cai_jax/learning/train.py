"""What is trained, and how it is updated: train states, gradient accumulation, the train step."""

from collections.abc import Callable
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cai_jax.learning.losses import TOKENS, Batch, Sums
from cai_jax.learning.skipping import SKIPPED
from cai_jax.models.blueprint import DECODER, Blueprint, Model, under
from cai_jax.models.decoder import Decoder
from cai_jax.models.layers import HeadParam, LoRAParam
from cai_jax.models.params import constrain_params, initializer
from cai_jax.parallel.mesh import abstract_replicated, split_rows
from cai_jax.parallel.program import Array, Program, abstract

Rows = TypeVar("Rows")  # a batch: any tree of arrays whose leading axis is batch
LossSum = Callable[[Any, Rows], tuple[jax.Array, Sums]]


class TrainState(NamedTuple, Generic[Array]):
    """What a step changes."""

    step: Array  # int32, updates done
    params: nnx.State  # trained parameters, float32
    opt_state: optax.OptState


class Trainable(NamedTuple):
    """A module taken apart for training; ``nnx.merge(graph, params, frozen)`` is the module."""

    graph: nnx.GraphDef
    params: nnx.State
    frozen: nnx.State


def abstract_trainable(blueprint: Blueprint, mesh: Mesh) -> Trainable:
    """A module as ``make_trainable`` takes it apart, abstract."""
    return Trainable(*blueprint.abstract_trainable(mesh))


def initial_programs(blueprint: Blueprint, mesh: Mesh, seed: int) -> list[Program]:
    """What makes the parameters that pretraining did not, where there are any.

    They are low-rank updates and heads.
    """
    if blueprint.module is Decoder and blueprint.lora is None:
        return []
    return [initializer(partial(blueprint.build, seed), (LoRAParam, HeadParam), mesh)]


def make_trainable(
    blueprint: Blueprint, decoder_params: nnx.State, mesh: Mesh, seed: int
) -> Trainable:
    """Splits a module into what training changes and what it leaves alone.

    Low-rank updates among the decoder's parameters are trained further, in a copy.

    Args:
      blueprint: of the module; without LoRA all of it is trained.
      decoder_params: of its decoder; float32 where all of them are trained, which gives them up,
        since updates reuse their buffers.
      mesh: that new parameters are sharded over.
      seed: of new parameters.
    """
    alone = blueprint.module is Decoder
    base = decoder_params if alone else under(DECODER, decoder_params)
    new = [program() for program in initial_programs(blueprint, mesh, seed)]
    if blueprint.lora:
        update, frozen = nnx.split_state(base, LoRAParam, ...)
        shardings = jax.tree.map(lambda x: x.sharding, update)
        copy = jax.jit(partial(jax.tree.map, jnp.copy), out_shardings=shardings)
        return Trainable(blueprint.graph, nnx.merge_state(new[0], copy(update)), frozen)
    return Trainable(blueprint.graph, nnx.merge_state(base, *new), nnx.State({}))


def state_program(params: nnx.State, optimizer: optax.GradientTransformation) -> Program:
    """Makes the state before the first update; optimizer moments are sharded as parameters are.

    It takes the parameters, and returns what a state has besides them: step and optimizer state.
    """
    shardings = jax.tree.map(lambda x: x.sharding, abstract_state(params, optimizer))

    def initial_state(params: nnx.State) -> tuple[jax.Array, optax.OptState]:
        return jnp.zeros((), jnp.int32), optimizer.init(params)

    start = jax.jit(initial_state, out_shardings=(shardings.step, shardings.opt_state))
    return Program("initial optimizer state", start, (abstract(params),))


def set_up_programs(
    blueprint: Blueprint, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int
) -> list[Program]:
    """What ``make_trainable`` and ``init_state`` compile."""
    params = abstract_trainable(blueprint, mesh).params
    return [*initial_programs(blueprint, mesh, seed), state_program(params, optimizer)]


def init_state(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState[jax.Array]:
    """The state before the first update."""
    step, opt_state = state_program(params, optimizer)(params)
    return TrainState(step, params, opt_state)


def abstract_state(
    params: nnx.State, optimizer: optax.GradientTransformation
) -> TrainState[jax.ShapeDtypeStruct]:
    """Shapes and places of ``init_state``, from parameters that may be abstract too.

    The places must be said: what is zero at the start depends on no parameter, so the compiler
    would put it whole on every device.
    """
    shapes = jax.eval_shape(optimizer.init, params)
    everywhere = jax.tree.leaves(params)[0].sharding
    if isinstance(everywhere, NamedSharding):
        everywhere = NamedSharding(everywhere.mesh, PartitionSpec())

    def place(shape: Any, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=sharding)

    opt_state = optax.tree.map_params(
        optimizer,
        lambda shape, parameter: place(shape, parameter.sharding),
        shapes,
        params,
        transform_non_params=lambda shape: place(shape, everywhere),
    )
    abstract = jax.tree.map(lambda x: place(x, x.sharding), params)
    return TrainState(place(jax.ShapeDtypeStruct((), jnp.int32), everywhere), abstract, opt_state)


def mean_loss_grads(
    loss_sum: LossSum[Rows],
    graph: nnx.GraphDef,
    params: nnx.State,
    frozen: nnx.State,
    batch: Rows,
    micro_batches: int,
) -> tuple[nnx.State, Sums]:
    """Gradients of the mean loss, and metric means, summed over micro-batches one by one.

    The mean is over the whole batch's weight, so the number of micro-batches changes memory and
    nothing else, however unequal their token counts.
    """

    def objective(params: nnx.State, micro: Rows) -> tuple[jax.Array, Sums]:
        return loss_sum(nnx.merge(graph, params, frozen), micro)

    def add(total: tuple[nnx.State, Sums], micro: Rows) -> tuple[tuple[nnx.State, Sums], None]:
        (_, sums), grads = jax.value_and_grad(objective, has_aux=True)(params, micro)
        return jax.tree.map(jnp.add, total, (constrain_params(grads), sums)), None

    split = split_rows(batch, micro_batches)
    shapes = jax.eval_shape(objective, params, jax.tree.map(lambda x: x[0], split))[1]
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, shapes))
    (grads, sums), _ = jax.lax.scan(add, zero, split)
    weight = jnp.where(sums["weight"] > 0, sums["weight"], 1.0)  # a batch may be all padding
    return jax.tree.map(lambda g: g / weight, grads), {
        name: value if name == "weight" else value / weight for name, value in sums.items()
    }


def apply_grads(
    state: TrainState,
    grads: nnx.State,
    metrics: Sums,
    optimizer: optax.GradientTransformation,
    learn: jax.Array | bool = True,
) -> tuple[TrainState, Sums]:
    """One optimizer update, and its metrics.

    Where a metric or the gradient's norm is NaN or infinite the update is left out, the schedule's
    step included, and counted in the metrics; where ``learn`` is false it is left out too.
    """
    metrics = metrics | {"grad_norm": optax.global_norm(grads)}
    finite = jnp.all(jnp.isfinite(jnp.stack(list(metrics.values()))))
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    done = TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)
    kept = jax.tree.map(partial(jnp.where, finite & learn), done, state)
    return kept, metrics | {SKIPPED: 1.0 - finite.astype(jnp.float32)}


@partial(
    jax.jit,
    static_argnames=("loss_sum", "graph", "optimizer", "micro_batches"),
    donate_argnames=("state",),
)
def train_step(
    state: TrainState,
    frozen: nnx.State,
    batch: Batch[jax.Array],
    learn: jax.Array | bool = True,
    *,
    loss_sum: LossSum[Batch[jax.Array]],
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    micro_batches: int,
) -> tuple[TrainState, Sums]:
    """One update on one batch; serves SFT and the preference model.

    Where ``learn`` is false nothing is changed, and the batch is only measured.
    """
    grads, metrics = mean_loss_grads(loss_sum, graph, state.params, frozen, batch, micro_batches)
    return apply_grads(state, grads, metrics, optimizer, learn)


def train_program(
    name: str,
    blueprint: Blueprint,
    trainable: Trainable,
    loss_sum: LossSum[Batch[jax.Array]],
    optimizer: optax.GradientTransformation,
    micro_batches: int,
    batch: Batch[jax.ShapeDtypeStruct],
    mesh: Mesh,
) -> Program:
    """``train_step`` of a module; ``trainable`` and ``batch`` may be abstract."""
    tokens = sum(int(x.size) for key, x in batch.items() if key in TOKENS)
    size = Model(trainable.graph, nnx.merge_state(trainable.params, trainable.frozen)).size
    static = {
        "loss_sum": loss_sum,
        "graph": trainable.graph,
        "optimizer": optimizer,
        "micro_batches": micro_batches,
    }
    state = abstract_state(trainable.params, optimizer)
    args = (state, abstract(trainable.frozen), batch, abstract_replicated((), jnp.bool_, mesh))
    flops = training_flops(blueprint, size, tokens)
    return Program(name, train_step, args, static, mesh, tokens, flops)


def training_flops(blueprint: Blueprint, size: int, tokens: int) -> float:
    """Floating point operations of an update, two for each parameter and token, and of gradients.

    Through every layer above the lowest trained one pass gradients of activations, as costly as
    the forward pass; those of weights are as costly once more, and low-rank updates have next to
    none.

    Args:
      blueprint: of what is trained.
      size: parameters of its decoder.
      tokens: that are read.
    """
    share = 1 - blueprint.frozen_layers / blueprint.config.num_layers
    return 2.0 * size * tokens * (1 + share * (1 if blueprint.lora else 2))
