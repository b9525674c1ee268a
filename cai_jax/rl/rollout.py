"""One batch of sampled responses, as arrays."""

from collections.abc import Sequence
from typing import Generic, NamedTuple

import numpy as np

from cai_jax.generation.batching import pad_rows
from cai_jax.generation.engine import Completion
from cai_jax.parallel.program import Array


class Width(NamedTuple):
    """Columns of a rollout, in tokens."""

    prompt: int
    response: int


def halvings(limit: int, least: int) -> list[int]:
    """A limit, half of it, and so on, rounded up; all but the limit are at least ``least``.

    Few widths, so that few programs compile; a short limit has no other beside it.
    """
    found = [limit]
    while -(-found[-1] // 2) >= max(least, 2):
        found.append(-(-found[-1] // 2))
    return found


def holding(length: int, widths: Sequence[int]) -> int:
    """The least of some widths that so many tokens fit in."""
    return min(width for width in widths if width >= length)


class Rollout(NamedTuple, Generic[Array]):
    """Prompts, padded on the left, and responses, padded on the right, from a fixed column on.

    What there is of responses alone has their n columns, which are the last ones of the t.
    """

    tokens_bt: Array  # int32
    segments_bt: Array  # int32: 1 on real tokens, 0 on padding
    mask_bn: Array  # float32: 1 on response tokens, the stop token included
    judged_bn: Array  # float32: 1 on response tokens up to the last one that the score is of
    sampler_logprobs_bn: Array  # float32, nats, by the sampler; 0 outside the mask
    scores_b: Array  # float32: reward of the judged part of the response


def assemble(
    prompts: Sequence[Sequence[int]],
    completions: Sequence[Completion],
    judged: Sequence[int],
    scores: np.ndarray,
    width: Width,
) -> Rollout[np.ndarray]:
    """Pads prompts and completions to host arrays of one shape, whatever was sampled.

    Args:
      prompts: token ids.
      completions: one per prompt.
      judged: how many tokens of each response its score is of.
      scores: [b], reward of each response.
      width: that both are padded to.
    """
    left, left_segments = pad_rows(prompts, width.prompt, "left")
    ids = [c.ids for c in completions]
    right, right_segments = pad_rows(ids, width.response, "right")
    logprobs_bn = np.zeros(right.shape, np.float32)
    for row, completion in enumerate(completions):
        logprobs_bn[row, : len(completion.ids)] = completion.logprobs
    mask_bn = right_segments.astype(np.float32)
    ends = np.asarray(judged)[:, None]
    return Rollout(
        tokens_bt=np.concatenate([left, right], axis=1),
        segments_bt=np.concatenate([left_segments, right_segments], axis=1),
        mask_bn=mask_bn,
        judged_bn=mask_bn * (np.arange(width.response) < ends),
        sampler_logprobs_bn=logprobs_bn,
        scores_b=np.asarray(scores, np.float32),
    )
