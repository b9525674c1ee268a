"""The training loop: what it records, how far it reads ahead, and that nothing moves unseen."""

import os
import shutil
import signal
from contextlib import closing

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
from cai_jax.learning.saving import SavePolicy, Saver
from cai_jax.learning.skipping import DivergedError, Skipping
from cai_jax.learning.train import init_state, make_trainable, train_program
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.decoder import Decoder
from cai_jax.models.params import init_on_mesh
from cai_jax.parallel.exit_codes import PREEMPTED
from cai_jax.parallel.mesh import abstract_batch, abstract_replicated, put_batch
from cai_jax.parallel.preemption import leaving_when_told
from cai_jax.parallel.program import Program

STEPS = 5
NONE_SKIPPED = Skipping(limit=0)


@jax.jit
def count(state, frozen, batch, learn):
    """An update that counts, and measures what its batch says; it leaves out what is not finite."""
    loss = batch["loss"][0] + sum(frozen)
    return state + learn, {"step": state, "loss": loss, "skipped": 1.0 - jnp.isfinite(loss)}


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

    def update(self, state, frozen, batch, learn):
        self.events.append(("dispatch", int(jax.device_get(state))))
        return count(state, frozen, batch, learn)

    def batches(self, losses):
        for step, loss in enumerate(losses):
            self.events.append(("read", step))
            yield {"loss": np.array([loss], np.float32)}

    def run(self, losses, frozen=(), skipping=NONE_SKIPPED):
        batch = {"loss": abstract_batch((1,), jnp.float32, self.mesh)}
        learn = abstract_replicated((), jnp.bool_, self.mesh)
        program = Program("update", self.update, ((), (), batch, learn), mesh=self.mesh)
        with open_history(self.folder, "fit", len(losses), ("loss",)) as self.history:
            state = put_batch(np.int32(0), self.mesh)
            batches = self.batches(losses)
            return loop.train(program, state, frozen, batches, self.history, Saver(), skipping)

    def when(self, kind, step):
        return self.events.index((kind, step))


@pytest.fixture
def a_loop(mesh, tmp_path, monkeypatch):
    return Loop(mesh, tmp_path, monkeypatch)


@pytest.mark.parametrize("steps", [0, 1, STEPS])
def test_every_step_is_recorded_once_and_in_order(a_loop, steps):
    losses = [float(n * n) for n in range(steps)]
    assert a_loop.run(losses) == steps
    rows = [{"step": n, "loss": loss, "skipped": 0.0} for n, loss in enumerate(losses)]
    assert a_loop.history.rows == rows


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
def test_a_nan_stops_the_loop_that_allows_none_and_names_its_step(a_loop, bad):
    losses = [1.0] * STEPS
    losses[bad] = float("nan")
    with pytest.raises(DivergedError, match=f"fit: 1 updates, the first at step {bad},"):
        a_loop.run(losses)
    assert ("dispatch", bad + 2) not in a_loop.events


def test_nothing_is_transferred_unseen(a_loop, monkeypatch):
    """Only what the loop itself puts on the devices may come from the host."""
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        a_loop.run([1.0], frozen=(np.ones((), np.float32),))
    monkeypatch.setattr(loop, "put_like", lambda batch, _: batch)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        a_loop.run([1.0])


class Fit:
    """Training of the tiny decoder over the devices of a mesh, on one batch again and again."""

    def __init__(self, mesh):
        self.mesh, self.optimizer = mesh, make_optimizer(1e-2, 0, 1.0)
        self.host = jax.device_get(sft_batch())
        blueprint = Blueprint(Decoder, TINY, jnp.dtype(jnp.float32))
        params = init_on_mesh(tiny_decoder, ..., mesh)
        self.trainable = make_trainable(blueprint, params, mesh, seed=0)
        self.update = train_program(
            "update",
            blueprint,
            self.trainable,
            sft_loss_sum,
            self.optimizer,
            1,
            {name: abstract_batch(x.shape, x.dtype, mesh) for name, x in self.host.items()},
            mesh,
        )
        self.state = init_state(self.trainable.params, self.optimizer)

    def run(self, folder, batches, saver=None, skipping=NONE_SKIPPED):
        """The state at the end, on the host, and the history."""
        frozen = self.trainable.frozen
        with (
            open_history(folder, "fit", STEPS, ("loss",)) as history,
            closing(saver or Saver()) as saver,
        ):
            state = loop.train(self.update, self.state, frozen, batches, history, saver, skipping)
        return jax.device_get(state), history.rows


def test_the_loop_is_its_steps(mesh8, tmp_path):
    """Over eight devices, the loop's history is that of steps done one by one."""
    fit = Fit(mesh8)
    ours, rows = fit.run(tmp_path, [fit.host] * 3)
    again = Fit(mesh8)
    state, losses = again.state, []
    for _ in range(3):
        state, metrics = again.update(state, again.trainable.frozen, put_batch(fit.host, mesh8))
        losses.append(float(metrics["loss"]))
    assert [row["loss"] for row in rows] == losses
    jax.tree.map(np.testing.assert_array_equal, ours.params, state.params)


class CutOffError(Exception):
    pass


def cut_off(batches, steps):
    yield from batches[:steps]
    raise CutOffError


EVERY_STEP = SavePolicy(every=1, keep=1, max_share=1e9)


def test_a_loop_that_is_cut_off_goes_on_to_the_same_end(mesh, mesh8, tmp_path):
    """To the last bit over the same devices, and over others but for rounding."""
    whole = Fit(mesh8)
    batches = [whole.host] * STEPS
    state, rows = whole.run(tmp_path / "whole", batches)
    for steps in (3, STEPS):
        folder = tmp_path / f"cut{steps}"
        with pytest.raises(CutOffError):
            Fit(mesh8).run(folder, cut_off(batches, steps), Saver(folder / "states", EVERY_STEP))
        assert [p.name for p in (folder / "states").iterdir()] == [str(steps)]
        shutil.copytree(folder / "states", tmp_path / f"again{steps}")
        found, again = Fit(mesh8).run(folder, batches, Saver(folder / "states", EVERY_STEP))
        assert again == rows
        jax.tree.map(np.testing.assert_array_equal, found, state)
    found, again = Fit(mesh).run(tmp_path, batches, Saver(tmp_path / "again3", EVERY_STEP))
    assert again[:3] == rows[:3]
    assert [row["loss"] for row in again] == pytest.approx([r["loss"] for r in rows], rel=1e-4)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    jax.tree.map(close, found.params, state.params)


def test_a_loop_that_is_told_to_end_saves_and_leaves(mesh, tmp_path, capsys):
    fit, seen = Fit(mesh), []

    def endless():
        yield fit.host
        os.kill(os.getpid(), signal.SIGTERM)
        while True:
            seen.append(1)
            yield fit.host

    seldom = Saver(tmp_path / "states", SavePolicy(every=1000))
    with pytest.raises(SystemExit) as ended, leaving_when_told(["python", "-m", "go on"]):
        fit.run(tmp_path, endless(), seldom)
    assert ended.value.code == PREEMPTED
    steps = int(*(p.name for p in (tmp_path / "states").iterdir()))
    assert steps in (len(seen), len(seen) + 1)
    assert "told to end by SIGTERM" in (said := capsys.readouterr().err)
    assert "python -m 'go on'" in said
    _, rows = Fit(mesh).run(tmp_path, [fit.host] * (steps + 1), Saver(tmp_path / "states"))
    assert len(rows) == steps + 1


def damage(state):
    """Flips a bit in the middle of its largest file."""
    file = max((p for p in state.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    return file


def test_a_damaged_state_is_named_and_the_one_before_it_is_used(mesh, tmp_path, caplog):
    policy, states = SavePolicy(every=1, keep=2, max_share=1e9), tmp_path / "states"
    fit = Fit(mesh)
    whole, rows = fit.run(tmp_path, [fit.host] * STEPS, Saver(states, policy))
    assert {path.name for path in states.iterdir()} == {"4", "5"}
    file, again = damage(states / "5"), Fit(mesh)
    found, told = again.run(tmp_path / "again", [again.host] * STEPS, Saver(states, policy))
    assert f"the state after step 5 is damaged, and not used: {file}: is damaged" in caplog.text
    assert told == rows
    jax.tree.map(np.testing.assert_array_equal, found, whole)
    assert {path.name for path in states.iterdir()} == {"4", "5"}


def test_where_no_state_is_whole_training_starts_over(mesh, tmp_path, caplog):
    states, fit, policy = tmp_path / "states", Fit(mesh), SavePolicy(every=1, max_share=1e9)
    _, rows = fit.run(tmp_path / "whole", [fit.host] * 3, Saver(states, policy))
    damage(states / "3")
    (states / "2" / "manifest.json").unlink()  # as a kill before it is written leaves it
    again = Fit(mesh)
    _, told = again.run(tmp_path / "again", [again.host] * 3, Saver(states, policy))
    assert told == rows
    assert "the state after step 3 is damaged" in caplog.text
    assert f"{states}: no saved state is whole; this training starts over" in caplog.text


def test_slow_saves_are_fewer(mesh, tmp_path):
    """Saving holds training up for a share of the time at most."""
    fit = Fit(mesh)
    with closing(Saver(tmp_path / "states", SavePolicy(every=1, keep=9, max_share=1e-9))) as saver:
        fit.run(tmp_path, [fit.host] * STEPS, saver)
    assert sorted(p.name for p in (tmp_path / "states").iterdir()) == ["1", str(STEPS)]
