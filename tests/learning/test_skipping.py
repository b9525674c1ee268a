"""Updates that are not finite change nothing, are written down, and, if many, stop the loop."""

import json
from contextlib import closing
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, tiny_decoder
from flax import nnx
from learning_batches import pairs

from cai_jax.learning.history import open_history
from cai_jax.learning.loop import check_loss, train
from cai_jax.learning.losses import preference_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.packing import abstract_packed, packed_pairs
from cai_jax.learning.saving import SavePolicy, Saver
from cai_jax.learning.skipping import DivergedError, Skipping, done
from cai_jax.learning.train import Trainable, init_state, train_program
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.params import init_on_mesh

GOOD = pairs()
# One pair weighs infinitely much, so loss and gradient are infinite or NaN.
BAD = GOOD | {"weight": np.array([1.0, np.inf, 1.0, 0.0], np.float32)}
SKIPPED = {"skipped": 1.0}
SAYS = {"lower_rate": "lower config.x.learning_rate", "start": "the checkpoint there"}


class Fit:
    """Training of a tiny preference model."""

    def __init__(self, mesh, rate=1e-2, first=1.0):
        blueprint = Blueprint(PreferenceModel, TINY, jnp.dtype(jnp.float32))
        self.optimizer = make_optimizer(rate, 3, 1.0)

        def build():
            model = blueprint.build()
            model.decoder.embedding.set_value(tiny_decoder().embedding[...] * first)
            return model

        params = init_on_mesh(build, nnx.Param, mesh)
        self.trainable = Trainable(blueprint.graph, params, nnx.State({}))
        self.update = train_program(
            *("update", blueprint, self.trainable, preference_loss_sum, self.optimizer, 1),
            abstract_packed(8, 10, 4, mesh),
            mesh,
        )

    def run(self, folder, batches, limit=3, saver=None):
        state = init_state(self.trainable.params, self.optimizer)
        self.skipping = Skipping(limit, folder / "skipped", text=str, **SAYS)
        with (
            open_history(folder, "fit", len(batches), ("loss",)) as self.history,
            closing(saver or Saver()) as saver,
        ):
            args = (self.trainable.frozen, batches, self.history)
            pack = partial(packed_pairs, rows=8, parts=1)
            state = train(self.update, state, *args, saver, self.skipping, pack)
            state = check_loss(self.update, state, *args, self.skipping, pack)
        return jax.device_get(state)


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.fixture(scope="module")
def whole(mesh8, tmp_path_factory):
    """What the good batches alone leave."""
    fit = Fit(mesh8)
    return fit.run(tmp_path_factory.mktemp("whole"), [GOOD] * 3), fit.history.rows


def test_a_batch_that_gives_inf_is_as_if_it_were_not_there(mesh8, tmp_path, whole):
    """Parameters, moments and the schedule's step, to the bit, over eight devices."""
    fit = Fit(mesh8)
    state = fit.run(tmp_path, [GOOD, BAD, GOOD, BAD, GOOD])
    assert_same(state, whole[0])
    assert done(fit.history.rows) == whole[1]
    assert [fit.history.rows[1], fit.history.rows[3]] == [SKIPPED] * 2


def test_its_rows_are_written_down(mesh8, tmp_path, caplog):
    Fit(mesh8).run(tmp_path, [GOOD, BAD])
    file = tmp_path / "skipped" / "step-000001.json"
    assert str(file) in caplog.text
    kept = json.loads(file.read_text(encoding="utf-8"))
    assert kept["measured"]["loss"] in ("inf", "nan")
    row = kept["rows"][1]
    assert row["weight"] == np.inf
    assert row["second"] == BAD["second"][1, :5].tolist()  # without padding
    assert row["second_text"] == str(row["second"])
    assert "loss_mask" not in row
    assert len(kept["rows"]) == 4


def test_too_many_stop_the_loop_with_what_there_was(mesh8, tmp_path, whole):
    """The state is saved, the folder named; with a higher limit it goes on to the same end."""
    batches, policy = [GOOD, BAD, GOOD, BAD, GOOD], SavePolicy(every=1000)
    saver = lambda: Saver(tmp_path / "states", policy)
    said = r"fit: 2 updates, the first at step 1, .*\. Others were done between them"
    for _ in range(2):  # the same command once more says the same
        with pytest.raises(DivergedError, match=said) as stopped:
            Fit(mesh8).run(tmp_path, batches, 1, saver())
        assert f"their batches are in {tmp_path / 'skipped'}" in str(stopped.value)
        assert "learning_rate" not in str(stopped.value)
    again = Fit(mesh8)
    assert_same(again.run(tmp_path, batches, 2, saver()), whole[0])
    assert done(again.history.rows) == whole[1]


def test_where_nothing_was_finite_before_any_update_the_start_is_to_blame(mesh8, tmp_path):
    fit = Fit(mesh8, first=np.nan)
    with pytest.raises(DivergedError, match="The checkpoint there gives that before") as stopped:
        fit.run(tmp_path, [GOOD] * 6)
    assert "learning_rate" not in str(stopped.value)
    with pytest.raises(DivergedError, match=r"the checkpoint there gives that before any update"):
        Fit(mesh8, first=np.nan).run(tmp_path, [GOOD])


@pytest.mark.parametrize("steps", [1, 2, 9])
def test_a_learning_rate_that_breaks_the_model_is_named(mesh8, tmp_path, steps):
    """However many updates follow the first, and if none does."""
    with pytest.raises(DivergedError, match=r"lower config\.x\.learning_rate$"):
        Fit(mesh8, rate=1e30).run(tmp_path, [GOOD] * steps)


def test_training_that_left_out_every_update_is_refused():
    skipping = Skipping(limit=9, **SAYS)
    skipping.check_learned("rl", [])
    skipping.check_learned("rl", [SKIPPED, {"grad_norm": 1.0}])
    with pytest.raises(DivergedError, match="the checkpoint there gives that before any"):
        skipping.check_learned("rl", [SKIPPED, SKIPPED])


def test_a_loss_that_exploded_is_refused_and_a_worse_one_is_not():
    skipping = Skipping(lower_rate="lower it")
    for after in (np.nan, np.inf, 60.0):
        with pytest.raises(DivergedError, match="lower it"):
            skipping.check_loss("fit", 4.0, after)
    skipping.check_loss("fit", 4.0, 8.0)
    skipping.check_loss("fit", 0.01, 2.0)
