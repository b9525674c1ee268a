"""The training loop: what it records, how far it reads ahead, and that nothing moves unseen."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, tiny_decoder
from learning_batches import sft_batch

from cai_jax.learning import loop
from cai_jax.learning.history import open_history
from cai_jax.learning.losses import sft_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.train import init_state, make_trainable, train_program
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.decoder import Decoder
from cai_jax.models.params import init_on_mesh
from cai_jax.parallel.mesh import abstract_batch, put_batch
from cai_jax.parallel.program import Program

STEPS = 5


@jax.jit
def count(state, frozen, batch):
    """An update that counts, and measures what its batch says."""
    return state + 1, {"step": state, "loss": batch["loss"][0] + sum(frozen)}


class Loop:
    """A loop over batches whose losses are given, and what happened in it, in order."""

    def __init__(self, mesh, folder, monkeypatch):
        self.mesh, self.folder, self.events = mesh, folder, []
        real = loop.fetch

        def fetch(metrics):
            metrics = real(metrics)
            self.events.append(("fetch", int(metrics["step"])))
            return metrics

        monkeypatch.setattr(loop, "fetch", fetch)

    def update(self, state, frozen, batch):
        self.events.append(("dispatch", int(jax.device_get(state))))
        return count(state, frozen, batch)

    def batches(self, losses):
        for step, loss in enumerate(losses):
            self.events.append(("read", step))
            yield {"loss": np.array([loss], np.float32)}

    def run(self, losses, frozen=()):
        batch = {"loss": abstract_batch((1,), jnp.float32, self.mesh)}
        program = Program("update", self.update, ((), (), batch), mesh=self.mesh)
        with open_history(self.folder, "fit", len(losses), ("loss",)) as self.history:
            state = put_batch(np.int32(0), self.mesh)
            return loop.train(program, state, frozen, self.batches(losses), self.history)

    def when(self, kind, step):
        return self.events.index((kind, step))


@pytest.fixture
def a_loop(mesh, tmp_path, monkeypatch):
    return Loop(mesh, tmp_path, monkeypatch)


@pytest.mark.parametrize("steps", [0, 1, STEPS])
def test_every_step_is_recorded_once_and_in_order(a_loop, steps):
    losses = [float(n * n) for n in range(steps)]
    assert a_loop.run(losses) == steps
    assert a_loop.history.rows == [{"step": n, "loss": loss} for n, loss in enumerate(losses)]


def test_metrics_are_fetched_after_the_next_step_is_dispatched(a_loop):
    a_loop.run([1.0] * STEPS)
    for step in range(STEPS - 1):
        assert a_loop.when("dispatch", step + 1) < a_loop.when("fetch", step)
        # And before the one after it, or the host would run further and further ahead.
        if step + 2 < STEPS:
            assert a_loop.when("fetch", step) < a_loop.when("dispatch", step + 2)


def test_batches_are_a_stream(a_loop):
    """A batch is read when the one before it has been given to the devices, not earlier."""
    a_loop.run([1.0] * STEPS)
    for step in range(STEPS - 1):
        assert a_loop.when("dispatch", step) < a_loop.when("read", step + 1)
    for step in range(STEPS - 2):
        assert a_loop.when("fetch", step) < a_loop.when("read", step + 2)


@pytest.mark.parametrize("bad", [0, 2, STEPS - 1])
def test_a_nan_stops_the_loop_and_names_its_step(a_loop, bad):
    losses = [1.0] * STEPS
    losses[bad] = float("nan")
    with pytest.raises(FloatingPointError, match=f"fit: loss is nan at step {bad};"):
        a_loop.run(losses)
    assert len(a_loop.history.rows) == bad
    assert ("dispatch", bad + 2) not in a_loop.events


def test_nothing_is_transferred_unseen(a_loop, monkeypatch):
    """Only what the loop itself puts on the devices may come from the host."""
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        a_loop.run([1.0], frozen=(np.ones((), np.float32),))
    monkeypatch.setattr(loop, "put_like", lambda batch, _: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        a_loop.run([1.0])


def test_the_loop_is_its_steps(mesh8, tmp_path):
    """Over eight devices, the loop's history is that of steps done one by one."""
    blueprint = Blueprint(Decoder, TINY, jnp.dtype(jnp.float32))
    optimizer, host = make_optimizer(1e-2, 0, 1.0), jax.device_get(sft_batch())
    start = lambda: make_trainable(blueprint, init_on_mesh(tiny_decoder, ..., mesh8), mesh8, seed=0)
    trainable = start()
    update = train_program(
        "update",
        blueprint,
        trainable,
        sft_loss_sum,
        optimizer,
        1,
        {name: abstract_batch(x.shape, x.dtype, mesh8) for name, x in host.items()},
        mesh8,
    )
    state = init_state(trainable.params, optimizer)
    with open_history(tmp_path, "fit", 3, ("loss",)) as history:
        ours = loop.train(update, state, trainable.frozen, [host] * 3, history)
    again = start()
    state, losses = init_state(again.params, optimizer), []
    for _ in range(3):
        state, metrics = update(state, again.frozen, put_batch(host, mesh8))
        losses.append(float(metrics["loss"]))
    assert [row["loss"] for row in history.rows] == losses
    jax.tree.map(np.testing.assert_array_equal, ours.params, state.params)
