"""What is saved is what is restored, in any folder; NaN is neither saved nor restored."""

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from conftest import tiny_decoder
from flax import nnx

from cai_jax.models.config import LoRAConfig
from cai_jax.models.io.checkpoint import CheckpointInfo, restore_trained, save_checkpoint
from cai_jax.models.layers import LoRAParam
from cai_jax.models.params import path_name
from cai_jax.parallel.program import abstract

LORA = LoRAConfig(2, 4.0)
INFO = CheckpointInfo("policy", "somewhere", LORA)


@pytest.fixture(scope="module")
def update():
    """A low-rank update."""
    return nnx.state(tiny_decoder(lora=LORA), LoRAParam)


def with_last(update, value):
    """The update with another last value of its last parameter."""
    *others, (path, last) = nnx.to_flat_state(update)
    changed = np.array(last.get_value())
    changed.flat[-1] = value
    return nnx.from_flat_state([*others, (path, last.replace(jnp.asarray(changed)))])


@pytest.mark.parametrize("name", ["plain", "a [1] *", "run[ab]"])
def test_what_is_saved_is_restored_whatever_the_folder_is_called(tmp_path, update, name):
    folder = tmp_path / name / "checkpoint"
    folder.parent.mkdir()
    save_checkpoint(folder, INFO, update)
    restored = restore_trained(folder, abstract(update))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), restored, update))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite_are_not_saved(tmp_path, update, value):
    last = path_name(nnx.to_flat_state(update)[-1][0])
    with pytest.raises(FloatingPointError, match=f"the parameter {last} is NaN or infinite"):
        save_checkpoint(tmp_path / "checkpoint", INFO, with_last(update, value))
    assert not (tmp_path / "checkpoint").exists()


def test_values_that_are_not_finite_are_not_restored(tmp_path, update):
    folder = tmp_path / "checkpoint"
    save_checkpoint(folder, INFO, update)
    odd = nnx.to_flat_state(with_last(update, np.nan))
    with ocp.StandardCheckpointer() as checkpointer:
        arrays = {path_name(path): v.get_value() for path, v in odd}
        checkpointer.save(folder / "params", arrays, force=True)
    with pytest.raises(ValueError, match=rf"{folder}: the parameter .* is NaN or infinite; train"):
        restore_trained(folder, abstract(update))
