"""Fused attention kernels say what plain attention says, forward and backward."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY
from flax import nnx

from cai_jax.models import decoder
from cai_jax.models.config import Execution, LayerAttention
from cai_jax.models.decoder import causal_segment_mask
from cai_jax.models.flash import cudnn_attend, cudnn_takes, splash_attend
from cai_jax.models.layers import attend
from cai_jax.parallel.mesh import make_mesh

SHAPES = [(4, 4, 128, 150), (4, 2, 64, 128)]  # heads, key heads, head size, tokens


def arrays(heads: int, kv_heads: int, size: int, time: int):
    keys = jax.random.split(jax.random.key(0), 3)
    draw = lambda key, *shape: jax.random.normal(key, shape, jnp.float32)
    q = draw(keys[0], 2, time, heads, size)
    k, v = (draw(key, 2, kv_heads, time, size) for key in keys[1:])
    # Two packed segments and padding on the right; padding on the left.
    segments = np.ones((2, time), np.int32)
    segments[0, 50:] = 2
    segments[0, -9:] = 0
    segments[1, :13] = 0
    return q, k, v, jnp.asarray(segments)


def plain(q, k, v, segments, window=None, cap=0.0):
    mask = causal_segment_mask(segments)
    if window:
        time = jnp.arange(segments.shape[1])
        mask &= time[:, None] - time[None, :] < window
    return attend(q, k, v, mask, 0.1, cap)


def real(x, segments):
    return x * (segments > 0)[..., None]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("window", "cap"), [(None, 0.0), (24, 0.0), (None, 5.0)])
def test_splash_attention_is_attention(shape, window, cap):
    q, k, v, segments = arrays(*shape)
    run = lambda q, k, v: splash_attend(q, k, v, segments, 0.1, window, cap, interpret=True)
    ours = real(run(q, k, v), segments)
    theirs = real(plain(q, k, v, segments, window, cap), segments)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


def test_its_gradients_are_those_of_attention():
    q, k, v, segments = arrays(*SHAPES[1])
    weight = jax.random.normal(jax.random.key(1), (*q.shape[:2], q.shape[2] * q.shape[3]))
    loss = lambda run: lambda *qkv: jnp.sum(real(run(*qkv), segments) * weight)
    splash = loss(lambda q, k, v: splash_attend(q, k, v, segments, 0.1, None, interpret=True))
    grads = jax.grad(splash, (0, 1, 2))(q, k, v)
    wanted = jax.grad(loss(lambda *qkv: plain(*qkv, segments)), (0, 1, 2))(q, k, v)
    for ours, theirs in zip(grads, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize("shape", SHAPES)
def test_devices_take_their_own_rows_and_heads(shape, mesh8):
    q, k, v, segments = arrays(*shape)
    run = jax.jit(lambda *x: splash_attend(*x, 0.1, None, interpret=True))
    with jax.set_mesh(mesh8):
        ours = run(*(jnp.concatenate([x, x]) for x in (q, k, v, segments)))
    theirs = real(plain(q, k, v, segments), segments)
    np.testing.assert_allclose(real(ours[:2], segments), theirs, atol=2e-5)
    np.testing.assert_allclose(real(ours[2:], segments), theirs, atol=2e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_cudnn_is_asked_for_attention(shape):
    q, k, v, segments = arrays(*shape)
    ours = cudnn_attend(q, k, v, causal_segment_mask(segments), 0.1, implementation="xla")
    theirs = plain(q, k, v, segments)
    np.testing.assert_allclose(real(ours, segments), real(theirs, segments), atol=2e-5)


def test_every_way_of_tensor_has_its_own_copy_of_too_few_key_heads():
    q, k, v, segments = arrays(4, 2, 64, 128)
    run = jax.jit(lambda *x: splash_attend(*x, 0.1, None, interpret=True))
    with jax.set_mesh(make_mesh(fsdp=2, tensor=4)):
        ours = run(q, k, v, segments)
    theirs = real(plain(q, k, v, segments), segments)
    np.testing.assert_allclose(real(ours, segments), theirs, atol=2e-5)


@pytest.mark.parametrize(
    ("fields", "fused"),
    [
        ({}, True),
        ({"attention": (LayerAttention(window=24),)}, True),
        ({"attention_softcap": 5.0, "query_scale": 0.2}, True),
        ({"attention": (LayerAttention(window=24), LayerAttention())}, False),  # layers are scanned
    ],
    ids=str,
)
def test_decoders_ask_for_the_kernel_where_it_can(fields, fused, monkeypatch):
    """With each family's window, scale and cap; elsewhere plain attention says the same."""
    asked = []

    def splash(*args):
        asked.append(args[4:])
        return splash_attend(*args, interpret=True)

    monkeypatch.setattr(decoder, "splash_attend", splash)
    config = replace(TINY, num_layers=2, head_dim=64, **fields)
    segments = arrays(*SHAPES[1])[3]
    tokens = jax.random.randint(jax.random.key(2), segments.shape, 0, TINY.vocab_size)
    hidden = {}
    for kernel in ("xla", "splash"):
        chosen = replace(config, execution=Execution(kernel))
        hidden[kernel] = decoder.Decoder(chosen, rngs=nnx.Rngs(0)).hidden(tokens, segments)
    assert bool(asked) == fused
    ours, theirs = (real(x, segments) for x in (hidden["splash"], hidden["xla"]))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(
    ("shape", "dtype", "takes"),
    [
        ((2, 128, 4, 64), jnp.bfloat16, True),
        ((2, 105, 4, 64), jnp.bfloat16, False),  # no gradient at odd lengths
        ((2, 128, 4, 256), jnp.bfloat16, False),
        ((2, 128, 4, 20), jnp.bfloat16, False),
        ((2, 128, 4, 64), jnp.float32, False),
    ],
)
def test_cudnn_is_asked_for_what_it_takes(shape, dtype, takes):
    assert cudnn_takes(jax.ShapeDtypeStruct(shape, dtype)) == takes
