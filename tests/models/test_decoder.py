"""The decoder against transformers, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, tiny_decoder
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_jax.models.decoder import KVCache, cached_keys, causal_segment_mask, segment_positions
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource
from cai_jax.models.params import param_sharding


def logits_of(decoder, tokens, segments):
    return decoder.logits(decoder.hidden(jnp.asarray(tokens), jnp.asarray(segments)))


@pytest.mark.reference
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 2, 8), (3, 1, 12), (2, 2, 16)])
def test_logits_match_transformers(tmp_path, mesh, tied, heads, kv_heads, head_dim):
    torch = pytest.importorskip("torch", reason="pip install '.[reference]' to compare")
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    reference = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=101,
            hidden_size=24,
            intermediate_size=40,
            num_hidden_layers=2,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            head_dim=head_dim,
            tie_word_embeddings=tied,
            rope_theta=5000.0,
            initializer_range=0.4,
        )
    ).eval()
    reference.save_pretrained(tmp_path)
    source = ModelSource(tmp_path)
    model = load_policy(source, policy_blueprint(source, jnp.dtype(jnp.float32)), mesh)
    rows = [np.arange(3, 20), np.arange(40, 47)]
    width, tokens, segments = 21, np.zeros((2, 21), np.int32), np.zeros((2, 21), np.int32)
    tokens[0, :17], segments[0, :17] = rows[0], 1  # padded on the right
    tokens[1, width - 7 :], segments[1, width - 7 :] = rows[1], 1  # padded on the left
    ours = np.asarray(logits_of(nnx.merge(model.graph, model.params), tokens, segments))
    for row, ids in enumerate(rows):
        with torch.no_grad():
            theirs = reference(torch.tensor(ids[None])).logits[0].numpy()
        np.testing.assert_allclose(ours[row][segments[row] > 0], theirs, atol=1e-4)


def test_packed_rows_equal_single_rows(decoder):
    first, second = np.arange(5, 14), np.arange(30, 37)
    tokens = np.concatenate([[0, 0], first, second, [0]])[None]
    segments = np.array([[0, 0] + [1] * 9 + [2] * 7 + [0]])
    packed = logits_of(decoder, tokens, segments)[0]
    for ids, place in ((first, slice(2, 11)), (second, slice(11, 18))):
        alone = logits_of(decoder, ids[None], np.ones((1, len(ids)), np.int32))[0]
        np.testing.assert_allclose(packed[place], alone, atol=1e-4)


@st.composite
def packed_rows(draw, width: int = 13) -> list[list[tuple[int, int]]]:
    """Rows of (segment id, position in it): runs of padding and of segments, in any order."""
    rows = []
    for _ in range(3):
        row, last = [], None
        while len(row) < width:
            segment = draw(st.integers(0, 4).filter(lambda x, last=last: x != last))
            length = draw(st.integers(1, width - len(row)))
            row += [(segment, i if segment else 0) for i in range(length)]
            last = segment
        rows.append(row)
    return rows


@settings(max_examples=50, deadline=None)
@given(packed_rows())
def test_positions_start_at_zero_in_every_segment(rows):
    segments, positions = np.moveaxis(np.array(rows, np.int32), -1, 0)
    np.testing.assert_array_equal(segment_positions(jnp.asarray(segments)), positions)


@settings(max_examples=50, deadline=None)
@given(packed_rows())
def test_mask_is_causal_and_stays_in_its_segment(rows):
    segments = np.array(rows, np.int32)[..., 0]
    mask = np.asarray(causal_segment_mask(jnp.asarray(segments)))
    assert mask.dtype == bool
    for b, row in enumerate(segments.tolist()):
        for t, asks in enumerate(row):
            seen = [asks == segment > 0 and s <= t for s, segment in enumerate(row)]
            assert mask[b, t].tolist() == seen, (row, t)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("bfloat16", 0.15)])
def test_cached_decoding_equals_the_whole_sequence(dtype, tolerance):
    """One token a row at a time, and several, beside a row of another length."""
    decoder = tiny_decoder()
    decoder.dtype = jnp.dtype(dtype)
    ids = np.arange(7, 22)
    whole = logits_of(decoder, ids[None], np.ones((1, 15), np.int32))[0]
    tokens, segments = np.zeros((2, 12), np.int32), np.zeros((2, 12), np.int32)
    for row, length in enumerate((10, 6)):
        tokens[row, :length], segments[row, :length] = ids[:length], 1
    hidden, keys, values = decoder.prefill(jnp.asarray(tokens), jnp.asarray(segments))
    np.testing.assert_allclose(decoder.logits(hidden)[0, :10], whole[:10], atol=tolerance)
    room = lambda held: tuple(jnp.pad(x, ((0, 0), (0, 0), (0, 8), (0, 0))) for x in held)
    cache = KVCache((*map(cached_keys, room(keys)),), room(values), jnp.asarray([10, 6]))
    # The second row takes three tokens, and a fourth that is not real.
    step = np.array([[10, 11, 0, 0], [6, 7, 8, 9]])
    hidden, cache = decoder.extend(jnp.asarray(ids[step]), jnp.asarray([2, 3]), cache)
    np.testing.assert_allclose(decoder.logits(hidden)[0, :2], whole[10:12], atol=tolerance)
    np.testing.assert_allclose(decoder.logits(hidden)[1, :3], whole[6:9], atol=tolerance)
    assert cache.lengths_b.tolist() == [12, 9]
    for i in range(3):
        step = ids[[[12 + i], [9 + i]]]
        hidden, cache = decoder.extend(jnp.asarray(step), jnp.ones(2, jnp.int32), cache)
        np.testing.assert_allclose(decoder.logits(hidden)[0, 0], whole[12 + i], atol=tolerance)
        np.testing.assert_allclose(decoder.logits(hidden)[1, 0], whole[9 + i], atol=tolerance)


def test_logits_do_not_depend_on_the_mesh(mesh, mesh8, model):
    tokens = jax.random.randint(jax.random.key(1), (4, 16), 0, TINY.vocab_size)
    run = jax.jit(lambda p, t: logits_of(nnx.merge(model.graph, p), t, jnp.ones_like(t)))
    with jax.set_mesh(mesh):
        one = run(model.params, tokens)
    placed = jax.tree.map(
        lambda v: v.replace(jax.device_put(v.get_value(), param_sharding(v, mesh8))),
        model.params,
        is_leaf=lambda v: isinstance(v, nnx.Variable),
    )
    kernel = placed["blocks"]["q"]["kernel"].get_value()
    assert kernel.sharding.shard_shape(kernel.shape) == (3, 16, 16)  # fsdp and tensor split it
    with jax.set_mesh(mesh8):
        eight = run(placed, tokens)
    np.testing.assert_allclose(one, eight, atol=1e-4)
