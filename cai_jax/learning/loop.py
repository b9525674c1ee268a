"""The training loop of everything that learns from records."""

import math
from collections.abc import Callable, Iterable
from itertools import islice

import jax
import numpy as np
from flax import nnx

from cai_jax.learning.history import History
from cai_jax.learning.losses import Batch, Sums
from cai_jax.learning.saving import Saver
from cai_jax.learning.skipping import SKIPPED, Skipping
from cai_jax.learning.train import TrainState
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import put_like, replicate
from cai_jax.parallel.program import Program, abstract

LayOut = Callable[[Batch[np.ndarray]], Batch[np.ndarray]]


def as_it_is(batch: Batch[np.ndarray]) -> Batch[np.ndarray]:
    """The arrays of a batch that updates take as they are."""
    return batch


def train(
    update: Program,
    state: TrainState,
    frozen: nnx.State,
    batches: Iterable[Batch[np.ndarray]],
    history: History,
    saver: Saver,
    skipping: Skipping,
    lay_out: LayOut = as_it_is,
) -> TrainState:
    """Goes over the batches once, from where the saver's last state is on.

    The metrics of a step are fetched after the next one is dispatched, so that devices never wait
    for the host.

    Args:
      update: from ``train_program``.
      state: before the first update; its buffers are reused.
      frozen: parameters that are not trained.
      batches: host arrays, leading axis batch; those of skipped steps are written down.
      history: gets the metrics of every step.
      saver: of states, each with the history until then.
      skipping: what is done about steps that are not finite.
      lay_out: makes of a batch the arrays that ``update`` takes.

    Raises:
      DivergedError: too many steps were not finite; the state is saved.
      PreemptedError: the run is told to end; the state is saved.
    """
    waiting: tuple[Sums, Batch[np.ndarray]] | None = None
    step = 0
    if saved := saver.restore(abstract(state)):
        state, step = saved.state, saved.step
        history.go_on(saved.notes["history"])
        skipping.check(history.name, history.rows)
    learn = _flag(True, update)
    for batch in islice(batches, step, None):
        on_devices = put_like(lay_out(batch), update.args[2])
        with jax.transfer_guard("disallow"):
            state, metrics = update(state, frozen, on_devices, learn)
        if waiting is not None:
            _record(*waiting, history, skipping)
        waiting, step = (metrics, batch), step + 1
        stops = skipping.too_many(history.rows)
        if saver.due(step, last=stops):
            _record(*waiting, history, skipping)
            waiting = None
            saver.save(step, state, {"history": list(history.rows)})
        if stops:
            skipping.check(history.name, history.rows)
    if waiting is not None:
        _record(*waiting, history, skipping)
    if saver.due(step, last=True):
        saver.save(step, state, {"history": list(history.rows)})
    skipping.check(history.name, history.rows)
    return state


def _flag(value: bool, update: Program) -> jax.Array:
    """Whether an update learns, on its devices."""
    return replicate(np.asarray(value), update.args[3].sharding.mesh)


def _record(metrics: Sums, batch: Batch[np.ndarray], history: History, skipping: Skipping) -> None:
    """Keeps the metrics of a step and, if it was left out, its batch."""
    found = fetch(metrics)
    if found.get(SKIPPED):
        measured = {name: str(value) for name, value in found.items() if name != SKIPPED}
        content = {"measured": measured, "rows": skipping.described(batch)}
        skipping.keep(history.name, len(history.rows), content)
        found = {SKIPPED: found[SKIPPED]}
    history.record(found)


def check_loss(
    update: Program,
    state: TrainState,
    frozen: nnx.State,
    batches: Iterable[Batch[np.ndarray]],
    history: History,
    skipping: Skipping,
    lay_out: LayOut = as_it_is,
) -> TrainState:
    """Computes the loss of the first batch that was learned from once more, after training.

    No step of the loop reads what its last update left. This runs the same program, so nothing
    more is compiled; arguments are those of ``train``.

    Raises:
      DivergedError: no step learned, the loss exploded, or its gradient is NaN or infinite.
    """
    skipping.check_learned(history.name, history.rows)
    learned = [step for step, row in enumerate(history.rows) if not row.get(SKIPPED)]
    if not learned:
        return state
    batch = next(islice(batches, learned[0], None))
    learn = _flag(False, update)
    state, metrics = update(state, frozen, put_like(lay_out(batch), update.args[2]), learn)
    found = fetch(metrics)
    after = math.nan if found[SKIPPED] else float(found["loss"])
    skipping.check_loss(history.name, history.rows[learned[0]]["loss"], after)
    return state
