"""One batch of sampled responses, as arrays."""

from collections.abc import Sequence
from typing import Generic, NamedTuple

import numpy as np

from cai_jax.generation.batching import pad_rows
from cai_jax.generation.engine import Completion
from cai_jax.parallel.program import Array


class Rollout(NamedTuple, Generic[Array]):
    """Prompts, padded on the left, and responses, padded on the right, from a fixed column on."""

    tokens_bt: Array  # int32
    segments_bt: Array  # int32: 1 on real tokens, 0 on padding
    mask_bt: Array  # float32: 1 on response tokens, the stop token included
    judged_bt: Array  # float32: 1 on response tokens up to the last one that the score is of
    sampler_logprobs_bt: Array  # float32, nats, by the sampler; 0 outside the mask
    scores_b: Array  # float32: reward of the judged part of the response


def assemble(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    judged: Sequence[int],
    scores: np.ndarray,
    prompt_length: int,
    max_new_tokens: int,
) -> Rollout[np.ndarray]:
    """Pads prompts and completions to host arrays of one shape, whatever was sampled.

    Args:
      prompts: token ids.
      completions: one per prompt.
      judged: how many tokens of each response its score is of.
      scores: [b], reward of each response.
      prompt_length: width of the prompts, in tokens.
      max_new_tokens: width of the responses, in tokens.
    """
    left, left_segments = pad_rows(prompts, prompt_length, "left")
    ids = [c.ids for c in completions]
    right, right_segments = pad_rows(ids, max_new_tokens, "right")
    logprobs_bt = np.zeros((len(ids), prompt_length + max_new_tokens), np.float32)
    for row, completion in enumerate(completions):
        logprobs_bt[row, prompt_length : prompt_length + len(completion.ids)] = completion.logprobs
    mask_bt = np.concatenate([np.zeros_like(left), right_segments], axis=1).astype(np.float32)
    ends = prompt_length + np.asarray(judged)[:, None]
    return Rollout(
        tokens_bt=np.concatenate([left, right], axis=1),
        segments_bt=np.concatenate([left_segments, right_segments], axis=1),
        mask_bt=mask_bt,
        judged_bt=mask_bt * (np.arange(mask_bt.shape[1]) < ends),
        sampler_logprobs_bt=logprobs_bt,
        scores_b=np.asarray(scores, np.float32),
    )
