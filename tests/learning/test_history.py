"""What a loop measured."""

import pytest
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from cai_jax.learning.history import open_history


def test_scalars_are_kept_and_written_by_step(tmp_path):
    rows = [{"loss": 2.5}, {"loss": 0.5}]
    with open_history(tmp_path, "fit", 2, ("loss",)) as history:
        for row in rows:
            assert history.record(row) == row
    assert history.rows == rows
    assert list((tmp_path / "tensorboard").iterdir())


def test_texts_are_written_by_step_and_name(tmp_path):
    with open_history(tmp_path, "fit", 2, ()) as history:
        for step in (0, 4):
            history.show(step, {"replies/a": f"    said at {step}"})
    (events,) = (tmp_path / "tensorboard").iterdir()
    said = [
        (event.step, value.tag, value.tensor.string_val)
        for event in EventFileLoader(str(events)).Load()
        for value in event.summary.value
    ]
    assert said == [(step, "replies/a", [f"    said at {step}".encode()]) for step in (0, 4)]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_named_and_not_kept(tmp_path, value):
    with open_history(tmp_path, "fit", 2, ()) as history:
        history.record({"loss": 1.0, "norm": 1.0})
        with pytest.raises(FloatingPointError, match=r"fit: norm is -?(nan|inf) at step 1, whose"):
            history.record({"loss": 1.0, "norm": value})
    assert history.rows == [{"loss": 1.0, "norm": 1.0}]


def test_of_a_step_that_was_left_out_what_is_finite_is_kept(tmp_path):
    with open_history(tmp_path, "fit", 2, ("loss",)) as history:
        history.record({"loss": float("nan"), "score": 2.0, "skipped": 1.0})
    assert history.rows == [{"score": 2.0, "skipped": 1.0}]
