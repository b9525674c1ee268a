"""Layouts of devices change where numbers are, not what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, tiny_decoder
from flax import nnx
from host_numbers import OPTIMIZER, numbers

from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.learning.train import init_state, make_trainable
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import LoRAConfig
from cai_jax.models.heads import PolicyWithValue
from cai_jax.models.params import init_on_mesh, resharder
from cai_jax.parallel.mesh import decoding_mesh, join_rows, make_mesh, offload_to_host, split_rows


@pytest.mark.parametrize("layout", [(1, 8, 1), (1, 4, 2), (2, 2, 2)], ids=str)
def test_eight_devices_train_and_sample_as_one_does(layout, model_folder):
    one, eight = numbers(model_folder, 1, 1, 1), numbers(model_folder, *layout)
    np.testing.assert_array_equal(eight["tokens"], one["tokens"])
    assert (one["ppo_kl"] > 0.01).all()
    for name in one:
        np.testing.assert_allclose(eight[name], one[name], rtol=1e-4, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("lora", [None, LoRAConfig(4, 8.0)])
def test_no_device_holds_a_whole_parameter_nor_a_whole_moment(lora):
    mesh = make_mesh(fsdp=8)
    base = init_on_mesh(lambda: tiny_decoder(), nnx.Param, mesh)
    blueprint = Blueprint(PolicyWithValue, TINY, jnp.dtype(jnp.float32), lora)
    trainable = make_trainable(blueprint, base, mesh, seed=0)
    state = init_state(trainable.params, OPTIMIZER)
    # Scalars, and the table of 97 words by 32 is split along the 32.
    arrays = [x for x in jax.tree.leaves((state, trainable.frozen)) if x.size > 2]
    assert len(arrays) > 12
    assert not any(x.sharding.is_fully_replicated for x in arrays)
    moments = state.opt_state[1][0].mu
    for ours, theirs in zip(jax.tree.leaves(moments), jax.tree.leaves(state.params), strict=True):
        assert ours.sharding == theirs.sharding


def test_the_layout_of_sampling_gives_the_same_tokens():
    mesh = make_mesh(fsdp=8)
    params = init_on_mesh(lambda: tiny_decoder(), nnx.Param, mesh)
    graph, _ = nnx.split(tiny_decoder())
    sampler = decoding_mesh(mesh, 2)
    assert dict(sampler.shape) == {"data": 4, "fsdp": 1, "tensor": 2}
    moved = resharder(params, sampler, jnp.dtype(jnp.float32))(params)
    assert moved["embedding"].get_value().sharding.mesh == sampler
    prompts = [[3 + i, 5, 7] for i in range(8)]
    keys = [named_key(0, i) for i in range(8)]
    one, other = (
        Generator(Model(graph, weights), layout, (2,), 8).generate(prompts, keys, 9, Sampling())
        for weights, layout in ((params, mesh), (moved, sampler))
    )
    assert [c.ids for c in one] == [c.ids for c in other]


def test_sampling_reads_matrices_in_the_compute_type_alone():
    mesh = make_mesh(fsdp=8)
    params = init_on_mesh(lambda: tiny_decoder(), nnx.Param, mesh)
    moved = resharder(params, mesh, jnp.dtype(jnp.bfloat16))(params)
    assert moved["embedding"].get_value().dtype == jnp.bfloat16
    assert moved["blocks"]["q"]["kernel"].get_value().dtype == jnp.bfloat16
    assert moved["norm"]["scale"].get_value().dtype == jnp.float32


def test_rows_split_and_joined_are_the_same_rows(mesh8):
    rows = np.arange(48).reshape(16, 3)
    with jax.set_mesh(mesh8):
        parts = jax.jit(lambda x: split_rows(x, 2))(rows)
        again = jax.jit(join_rows)(parts)
    assert parts.shape == (2, 8, 3)
    np.testing.assert_array_equal(again, rows)
    np.testing.assert_array_equal(parts[1], rows[1::2])


def test_offloaded_arrays_leave_the_device():
    mesh = make_mesh(fsdp=8)
    params = init_on_mesh(lambda: tiny_decoder(), nnx.Param, mesh)
    wanted = jax.device_get(params)
    back_on_device = offload_to_host(params, offload=True)
    back = back_on_device()
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert ours.sharding == theirs.sharding
    for x in jax.tree.leaves(params):
        x.delete()
    for ours, theirs in zip(
        jax.tree.leaves(back_on_device()), jax.tree.leaves(wanted), strict=True
    ):
        np.testing.assert_array_equal(ours, theirs)


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"tensor of sampling has size 3, .* the 8 devices"):
        decoding_mesh(make_mesh(fsdp=8), 3)
