"""What is trained, how it is updated: train states, optimizers, gradient accumulation."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cai_jax.learning.losses import Batch, Sums
from cai_jax.models.config import LoRAConfig
from cai_jax.models.io.load import under
from cai_jax.models.layers import HeadParam
from cai_jax.models.params import (
    abstract_split,
    constrain_params,
    init_on_mesh,
    trainable_filter,
)
from cai_jax.parallel.mesh import split_rows

LossSum = Callable[[Any, Batch], tuple[jax.Array, Sums]]


class TrainState(NamedTuple):
    """What a step changes."""

    step: jax.Array  # int32, updates done
    params: nnx.State  # trained parameters, float32
    opt_state: optax.OptState


class Trainable(NamedTuple):
    """A module taken apart for training; ``nnx.merge(graph, params, frozen)`` is the module."""

    graph: nnx.GraphDef
    params: nnx.State
    frozen: nnx.State


def make_trainable(
    build: Callable[[], nnx.Module],
    decoder_params: nnx.State,
    lora: LoRAConfig | None,
    mesh: Mesh,
    decoder_name: str = "",
) -> Trainable:
    """Splits a module into what training changes and what it leaves alone.

    Args:
      build: makes the module, with LoRA if ``lora`` is given.
      decoder_params: pretrained parameters; float32 where all of them are trained.
      lora: None trains everything.
      mesh: where new parameters go.
      decoder_name: attribute of the module that holds the decoder, empty if it is the decoder.
    """
    base = under(decoder_name, decoder_params) if decoder_name else decoder_params
    graph, _ = abstract_split(build)
    if lora:
        return Trainable(graph, init_on_mesh(build, trainable_filter(True), mesh), base)
    heads = init_on_mesh(build, HeadParam, mesh)
    own = jax.tree.map(jnp.copy, base)  # steps donate what they train; others may share the base
    return Trainable(graph, nnx.merge_state(own, heads), nnx.State({}))


def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    max_grad_norm: float,
    adam_eps: float = 1e-8,
    decay_steps: int = 0,
) -> optax.GradientTransformation:
    """Adam with clipping by global norm and linear warmup.

    The rate stays constant, or falls along a cosine, to 0 after ``decay_steps`` updates.
    """
    schedule = optax.linear_schedule(0.0, learning_rate, max(warmup_steps, 1))
    if decay_steps:
        schedule = optax.warmup_cosine_decay_schedule(
            0.0, learning_rate, max(warmup_steps, 1), decay_steps + 1
        )
    # Shifted by one, lest the first update be void; warmup_steps=0 is then a constant rate.
    rate = lambda step: schedule(step + 1)
    return optax.chain(
        optax.clip_by_global_norm(max_grad_norm), optax.adam(rate, b1=0.9, b2=0.95, eps=adam_eps)
    )


def init_state(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState:
    """A state before the first update; optimizer moments lie where their parameters do."""
    places = jax.tree.map(lambda x: x.sharding, abstract_state(params, optimizer))
    start = lambda params: (jnp.zeros((), jnp.int32), optimizer.init(params))
    step, opt_state = jax.jit(start, out_shardings=(places.step, places.opt_state))(params)
    return TrainState(step, params, opt_state)


def abstract_state(params: nnx.State, optimizer: optax.GradientTransformation) -> TrainState:
    """Shapes and places of ``init_state``, from parameters that may be abstract too.

    The places must be said: what is zero at the start depends on no parameter, so the compiler
    would put it whole on every device.
    """
    shapes = jax.eval_shape(optimizer.init, params)
    everywhere = jax.tree.leaves(params)[0].sharding
    if isinstance(everywhere, NamedSharding):
        everywhere = NamedSharding(everywhere.mesh, PartitionSpec())

    def place(shape, sharding):
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
    loss_sum: LossSum,
    graph: nnx.GraphDef,
    params: nnx.State,
    frozen: nnx.State,
    batch: Batch,
    micro_batches: int,
) -> tuple[nnx.State, Sums]:
    """Gradients of the mean loss, and metric means, summed over micro-batches one by one.

    The mean is over the whole batch's weight, so the number of micro-batches changes memory and
    nothing else, however unequal their token counts.
    """

    def objective(params, micro):
        return loss_sum(nnx.merge(graph, params, frozen), micro)

    def add(total, micro):
        (_, sums), grads = jax.value_and_grad(objective, has_aux=True)(params, micro)
        return jax.tree.map(jnp.add, total, (constrain_params(grads), sums)), None

    split = split_rows(batch, micro_batches)
    shapes = jax.eval_shape(objective, params, jax.tree.map(lambda x: x[0], split))[1]
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), (params, shapes))
    (grads, sums), _ = jax.lax.scan(add, zero, split)
    weight = jnp.maximum(sums["weight"], 1.0)
    return jax.tree.map(lambda g: g / weight, grads), {
        name: value if name == "weight" else value / weight for name, value in sums.items()
    }


def apply_grads(
    state: TrainState, grads: nnx.State, optimizer: optax.GradientTransformation
) -> TrainState:
    """One optimizer update."""
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    return TrainState(state.step + 1, optax.apply_updates(state.params, updates), opt_state)


@partial(
    jax.jit,
    static_argnames=("loss_sum", "graph", "optimizer", "micro_batches"),
    donate_argnames=("state",),
)
def train_step(
    state: TrainState,
    frozen: nnx.State,
    batch: Batch,
    *,
    loss_sum: LossSum,
    graph: nnx.GraphDef,
    optimizer: optax.GradientTransformation,
    micro_batches: int,
) -> tuple[TrainState, Sums]:
    """One update on one batch; serves SFT and the preference model."""
    grads, metrics = mean_loss_grads(loss_sum, graph, state.params, frozen, batch, micro_batches)
    metrics["grad_norm"] = optax.global_norm(grads)
    return apply_grads(state, grads, optimizer), metrics
