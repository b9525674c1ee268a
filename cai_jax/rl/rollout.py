"""One batch of sampled responses, as arrays."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from cai_jax.generation.batching import pad_rows
from cai_jax.generation.engine import Completion


class Rollout(NamedTuple):
    """Prompts padded on the left and responses on the right of one fixed column."""

    tokens_bt: jax.Array  # int32
    segments_bt: jax.Array  # int32: 1 on real tokens
    mask_bt: jax.Array  # float32: 1 on response tokens, the stop token included
    sampler_logprobs_bt: jax.Array  # float32, as the sampler saw them; 0 outside the mask
    scores_b: jax.Array  # float32, what the response earns as a whole


def assemble(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    scores: np.ndarray,
    prompt_length: int,
    max_new_tokens: int,
) -> Rollout:
    """Host arrays of one shape whatever was sampled."""
    left, left_segments = pad_rows(prompts, prompt_length, "left")
    ids = [c.ids for c in completions]
    right, right_segments = pad_rows(ids, max_new_tokens, "right")
    sampled = np.zeros((len(ids), prompt_length + max_new_tokens), np.float32)
    for row, completion in enumerate(completions):
        sampled[row, prompt_length : prompt_length + len(completion.ids)] = completion.logprobs
    return Rollout(
        tokens_bt=np.concatenate([left, right], axis=1),
        segments_bt=np.concatenate([left_segments, right_segments], axis=1),
        mask_bt=np.concatenate([np.zeros_like(left), right_segments], axis=1).astype(np.float32),
        sampler_logprobs_bt=sampled,
        scores_b=np.asarray(scores, np.float32),
    )
