"""The training loop of everything that learns from records."""

from collections.abc import Iterable

import jax
import numpy as np
from flax import nnx

from cai_jax.learning.history import History
from cai_jax.learning.losses import Batch
from cai_jax.learning.train import TrainState
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import put_like
from cai_jax.parallel.program import Program


def train(
    update: Program,
    state: TrainState,
    frozen: nnx.State,
    batches: Iterable[Batch[np.ndarray]],
    history: History,
) -> TrainState:
    """Goes over the batches once.

    The metrics of a step are fetched after the next one is dispatched, so that devices never wait
    for the host.

    Args:
      update: from ``train_program``.
      state: before the first update; its buffers are reused.
      frozen: parameters that are not trained.
      batches: host arrays, leading axis batch.
      history: gets the metrics of every step.

    Raises:
      FloatingPointError: a metric is NaN or infinite.
    """
    waiting = None
    for batch in batches:
        on_devices = put_like(batch, update.args[-1])
        with jax.transfer_guard("disallow"):
            state, metrics = update(state, frozen, on_devices)
        if waiting is not None:
            history.record(fetch(waiting))
        waiting = metrics
    if waiting is not None:
        history.record(fetch(waiting))
    return state
