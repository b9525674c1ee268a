"""The training loop of everything that learns from records."""

from collections.abc import Iterable
from itertools import islice

import jax
import numpy as np
from flax import nnx

from cai_jax.learning.history import History
from cai_jax.learning.losses import Batch
from cai_jax.learning.saving import Saver
from cai_jax.learning.train import TrainState
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import put_like
from cai_jax.parallel.program import Program, abstract


def train(
    update: Program,
    state: TrainState,
    frozen: nnx.State,
    batches: Iterable[Batch[np.ndarray]],
    history: History,
    saver: Saver,
) -> TrainState:
    """Goes over the batches once, from where the saver's last state is on.

    The metrics of a step are fetched after the next one is dispatched, so that devices never wait
    for the host.

    Args:
      update: from ``train_program``.
      state: before the first update; its buffers are reused.
      frozen: parameters that are not trained.
      batches: host arrays, leading axis batch.
      history: gets the metrics of every step.
      saver: of states, each with the history until then.

    Raises:
      FloatingPointError: a metric is NaN or infinite.
      PreemptedError: the run is told to end; the state is saved.
    """
    waiting, step = None, 0
    if saved := saver.restore(abstract(state)):
        state, step = saved.state, saved.step
        history.go_on(saved.notes["history"])
    for batch in islice(batches, step, None):
        on_devices = put_like(batch, update.args[-1])
        with jax.transfer_guard("disallow"):
            state, metrics = update(state, frozen, on_devices)
        if waiting is not None:
            history.record(fetch(waiting))
        waiting, step = metrics, step + 1
        if saver.due(step):
            history.record(fetch(waiting))
            waiting = None
            saver.save(step, state, {"history": list(history.rows)})
    if waiting is not None:
        history.record(fetch(waiting))
    if saver.due(step, last=True):
        saver.save(step, state, {"history": list(history.rows)})
    return state
