"""Scores of rows that do not feel their batch."""

import jax.numpy as jnp
import numpy as np
from conftest import TINY, at_rest
from flax import nnx
from generation_rows import PROMPTS

from cai_jax.generation.scoring import Scorer
from cai_jax.models.heads import PreferenceModel


def test_batched_scores_equal_single_scores(mesh, model):
    replies = [[4, 5], [6], [7, 8, 9, 0], [0, 0], [11, 12, 13]]
    together = Scorer(model, mesh, 4, 8).completion_logprobs(PROMPTS, replies)
    alone = Scorer(model, mesh, 1, 1)
    for prompt, reply, batched in zip(PROMPTS, replies, together, strict=True):
        assert len(batched) == len(reply)
        np.testing.assert_allclose(
            alone.completion_logprobs([prompt], [reply])[0], batched, atol=1e-4
        )
    choices = Scorer(model, mesh, 4, 8).choice_logprobs(PROMPTS, [4, 5])
    np.testing.assert_allclose(choices[0, 0], together[0][0], atol=1e-4)


def test_batched_preference_scores_equal_single_scores(mesh):
    module = PreferenceModel(TINY, rngs=nnx.Rngs(0))
    module.head.kernel.set_value(jnp.linspace(-1, 1, TINY.d_model))
    together = Scorer(at_rest(module), mesh, 4, 8).preference_scores(PROMPTS)
    alone = [Scorer(at_rest(module), mesh, 1, 1).preference_scores([p])[0] for p in PROMPTS]
    np.testing.assert_allclose(together, alone, atol=1e-4)
