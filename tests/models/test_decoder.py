"""The decoder against transformers, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, at_rest, tiny_decoder
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder, causal_segment_mask, segment_positions
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.load import ModelSource, load_policy
from cai_jax.models.layers import LoRAParam, matmul
from cai_jax.models.params import merge_lora, param_sharding


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
    model = load_policy(ModelSource(tmp_path), mesh, jnp.float32, jnp.float32)
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


def test_cached_decoding_equals_the_whole_sequence(decoder):
    ids = np.arange(7, 22)
    whole = logits_of(decoder, ids[None], np.ones((1, 15), np.int32))[0]
    tokens, segments = np.zeros((1, 12), np.int32), np.zeros((1, 12), np.int32)
    tokens[0, 2:], segments[0, 2:] = ids[:10], 1  # two columns of left padding
    hidden, cache = decoder.prefill(jnp.asarray(tokens), jnp.asarray(segments), 20)
    np.testing.assert_allclose(decoder.logits(hidden)[0, 2:], whole[:10], atol=1e-4)
    for i in range(10, 15):
        hidden, cache = decoder.decode(
            jnp.asarray(ids[i : i + 1]), jnp.ones(1, bool), jnp.int32(i + 2), cache
        )
        np.testing.assert_allclose(decoder.logits(hidden)[0], whole[i], atol=1e-4)


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


def test_matmul_gradients_equal_autodiff():
    x, w = jax.random.normal(jax.random.key(0), (2, 3, 4)), jnp.arange(8.0).reshape(4, 2)
    ours = jax.grad(lambda x, w: jnp.sum(jnp.sin(matmul(x, w))), (0, 1))(x, w)
    theirs = jax.grad(lambda x, w: jnp.sum(jnp.sin(x @ w)), (0, 1))(x, w)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)


def test_lora_starts_as_the_base_and_merges_exactly():
    lora = LoRAConfig(rank=2, alpha=6.0)
    base, adapted = tiny_decoder(), tiny_decoder(lora=lora)
    tokens, segments = jnp.arange(12)[None], jnp.ones((1, 12), jnp.int32)
    graph, updates, rest = nnx.split(adapted, LoRAParam, ...)
    base_params = at_rest(base).params
    untouched = nnx.merge(graph, updates, base_params)
    np.testing.assert_array_equal(
        logits_of(untouched, tokens, segments), logits_of(base, tokens, segments)
    )
    updates = jax.tree.map(
        lambda x: jax.random.normal(jax.random.key(x.size), x.shape) * 0.1, updates
    )
    trained = nnx.merge(graph, updates, base_params)
    merged = nnx.merge(at_rest(base).graph, merge_lora(base_params, updates, lora.scale))
    np.testing.assert_allclose(
        logits_of(trained, tokens, segments), logits_of(merged, tokens, segments), atol=1e-4
    )
    assert len(jax.tree.leaves(rest)) == len(jax.tree.leaves(base_params))


@pytest.mark.parametrize("side", ["left", "right", "both"])
def test_preference_score_reads_the_last_real_token(side):
    model = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    model.head.kernel.set_value(jax.random.normal(jax.random.key(3), (TINY.d_model,)))
    ids = np.arange(4, 13)
    hidden = Decoder.hidden(model.decoder, jnp.asarray(ids[None]), jnp.ones((1, 9), jnp.int32))
    expected = np.asarray(hidden[0, -1]) @ np.asarray(model.head.kernel[...])
    start = {"left": 5, "right": 0, "both": 2}[side]
    tokens, segments = np.zeros((1, 14), np.int32), np.zeros((1, 14), np.int32)
    tokens[0, start : start + 9], segments[0, start : start + 9] = ids, 1
    score = model(jnp.asarray(tokens), jnp.asarray(segments))
    np.testing.assert_allclose(score[0], expected, rtol=1e-4)
