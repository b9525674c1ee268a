"""A model that gives NaN or infinity is named where it was called, by every call there is."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import TINY, at_rest, tiny_decoder
from flax import nnx

from cai_jax.generation.engine import Generator
from cai_jax.generation.finite import NotFiniteError
from cai_jax.generation.journal import Journal, keeping
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.models.blueprint import Model, Origin
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PreferenceModel

ORIGIN = Origin("the checkpoint there, which the stage sl_train wrote,", "sl_train")
ODD = 11  # a token whose embedding is broken
PROMPTS = [[5, 7], [5, ODD, 9], [6], [8, 9, 10]]
KEYS = [named_key(0, "row", i) for i in range(len(PROMPTS))]


def broken(module: nnx.Module, value: float) -> Model:
    decoder = module if hasattr(module, "embedding") else module.decoder
    decoder.embedding.set_value(decoder.embedding[...].at[ODD].set(value))
    whole = at_rest(module)
    return Model(whole.graph, whole.params, ORIGIN)


def judge() -> PreferenceModel:
    model = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    model.decoder.embedding.set_value(tiny_decoder().embedding[...])
    model.head.kernel.set_value(jnp.linspace(-1, 1, TINY.d_model))
    return model


@pytest.mark.parametrize(
    ("value", "sampling"),
    [
        (np.nan, Sampling()),
        (1e38, Sampling(0.0)),
        (np.nan, Sampling(0.7, top_k=3)),
        (np.nan, Sampling(1.0, top_p=0.5)),
        (np.inf, Sampling(0.0, top_k=2)),
    ],
)
def test_sampling(mesh, tmp_path, value, sampling):
    """Of one token of the vocabulary too, however few are sampled from; and it is not kept."""
    generator = Generator(broken(tiny_decoder(), value), mesh, (2,), 4, 4)
    journal = Journal(tmp_path)
    with pytest.raises(NotFiniteError) as error, keeping(journal):
        generator.generate(PROMPTS, KEYS, 5, sampling, "responses")
    said = str(error.value)
    assert said.startswith(f"responses: {ORIGIN.name} gives ")
    assert "logits that are NaN or infinite" in said
    assert "run sl_train again" in said
    assert not any(word in said for word in ("larger", "temperature"))
    assert error.value.origin == ORIGIN
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_log_probabilities(mesh, value):
    scorer = Scorer(broken(tiny_decoder(), value), mesh, 4, 8)
    for call in (
        lambda: scorer.completion_logprobs(PROMPTS, PROMPTS, name="asked"),
        lambda: scorer.choice_logprobs(PROMPTS, [4, 5], "asked"),
    ):
        with pytest.raises(NotFiniteError, match=r"asked: the checkpoint there, .* every row"):
            call()


def test_one_row_is_named_where_it_alone_is_odd(mesh):
    """Those that share a pack with it are as odd: nothing times NaN is NaN."""
    scorer = Scorer(broken(judge(), np.nan), mesh, 4, len(PROMPTS[1]))
    for call in (scorer.preference_scores, scorer.preference_features):
        with pytest.raises(NotFiniteError, match=r"asked: the checkpoint there, .* for row 2 of"):
            call(PROMPTS, "asked")
    assert np.isfinite(scorer.preference_scores([*PROMPTS[:1], *PROMPTS[2:]])).all()
    together = Scorer(broken(judge(), np.nan), mesh, 4, 64)
    with pytest.raises(NotFiniteError, match="for every row of a batch"):
        together.preference_scores(PROMPTS)


def test_a_model_of_no_stage_is_not_said_to_be_trained(mesh):
    whole = broken(tiny_decoder(), np.nan)
    model = Model(whole.graph, whole.params, Origin("the model /m"))
    with pytest.raises(NotFiniteError, match=r"the model /m gives .*; its weights are damaged"):
        Generator(model, mesh, (2,), 4, 4).generate(PROMPTS, KEYS, 2, Sampling())


def test_no_row_of_a_pack_is_blamed_for_another(mesh):
    """Rows that begin alike are read side by side; nothing times NaN is NaN, in all of them."""
    decoder = Decoder(replace(TINY, tie_embeddings=False), rngs=nnx.Rngs(0))
    scorer = Scorer(broken(decoder, np.nan), mesh, 4, 8)
    prompts = [[*[5] * 200, 6 + i] for i in range(4)]
    replies = [[7, 8], [7, 9], [ODD, 7, 8], [7]]
    with pytest.raises(NotFiniteError, match=r"asked, rests: .* for every row of a batch"):
        scorer.completion_logprobs(prompts, replies, name="asked")
