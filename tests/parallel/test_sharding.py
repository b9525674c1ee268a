"""Layouts of devices change where numbers are, not what they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, tiny_decoder
from flax import nnx
from host_numbers import OPTIMIZER, numbers
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import AbstractMesh

from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.learning.train import init_state, make_trainable
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import LoRAConfig
from cai_jax.models.heads import PolicyWithValue
from cai_jax.models.params import init_on_mesh, resharder
from cai_jax.parallel.mesh import (
    LOGICAL_RULES,
    MESH_AXES,
    decoding_mesh,
    join_rows,
    make_mesh,
    offload_to_host,
    param_spec,
    partition_spec,
    split_rows,
)

SIZES = st.sampled_from([1, 3, 4, 6, 8, 9, 12, 24, 48])  # most of them divide, some do not
DIMENSIONS = st.lists(
    st.tuples(st.sampled_from([None, *LOGICAL_RULES]), SIZES), min_size=2, max_size=4
)
MESHES = st.tuples(*[st.sampled_from([1, 2, 3, 4])] * 3).map(
    lambda sizes: AbstractMesh(sizes, MESH_AXES)
)


def shards(part, mesh) -> int:
    """How many shards one entry of a partition spec asks for."""
    return int(np.prod([mesh.shape[name] for name in mesh_axes(part)]))


def mesh_axes(part) -> tuple[str, ...]:
    return (part,) if isinstance(part, str) else part or ()


@settings(max_examples=400, deadline=None)
@given(DIMENSIONS, MESHES)
def test_specs_use_a_mesh_axis_once_and_divide_every_dimension(dimensions, mesh):
    axes, shape = zip(*dimensions, strict=True)
    for spec in (partition_spec(axes, shape, mesh), param_spec(axes, shape, mesh)):
        assert len(spec) == len(shape)
        used = [name for part in spec for name in mesh_axes(part)]
        assert len(used) == len(set(used))
        for part, axis, size in zip(spec, axes, shape, strict=True):
            assert size % shards(part, mesh) == 0
            assert axis != "layers" or part is None


@settings(max_examples=400, deadline=None)
@given(DIMENSIONS, MESHES)
def test_a_dimension_takes_the_mesh_axes_of_its_rule_if_they_are_free(dimensions, mesh):
    axes, shape = zip(*dimensions, strict=True)
    used: set[str] = set()
    for part, axis, size in zip(partition_spec(axes, shape, mesh), axes, shape, strict=True):
        wanted = mesh_axes(LOGICAL_RULES[axis]) if axis else ()
        ways = shards(wanted, mesh)
        free = ways > 1 and size % ways == 0 and not used.intersection(wanted)
        assert mesh_axes(part) == (wanted if free else ())
        used.update(mesh_axes(part))


@settings(max_examples=400, deadline=None)
@given(DIMENSIONS, MESHES)
def test_a_parameter_is_sharded_over_fsdp_wherever_it_divides(dimensions, mesh):
    axes, shape = zip(*dimensions, strict=True)
    spec, fsdp = param_spec(axes, shape, mesh), mesh.shape["fsdp"]
    if fsdp == 1 or any("fsdp" in mesh_axes(part) for part in spec):
        return
    for part, axis, size in zip(spec, axes, shape, strict=True):
        assert axis == "layers" or size // shards(part, mesh) % fsdp


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


def test_offloaded_arrays_leave_the_device_and_come_back():
    mesh = make_mesh(fsdp=8)
    params = init_on_mesh(lambda: tiny_decoder(), nnx.Param, mesh)
    wanted = jax.device_get(params)
    restore = offload_to_host(params, offload=True)
    back = restore()
    for ours, theirs in zip(jax.tree.leaves(back), jax.tree.leaves(params), strict=True):
        assert ours.sharding == theirs.sharding
    for x in jax.tree.leaves(params):
        x.delete()
    for ours, theirs in zip(jax.tree.leaves(restore()), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_layout_that_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"tensor of sampling has size 3, .* the 8 devices"):
        decoding_mesh(make_mesh(fsdp=8), 3)
