"""How far the policies have moved from the base model."""

from collections.abc import Iterator

import numpy as np

from cai_jax.evaluation.evaluator import Evaluator, Evidence, Tools, policies
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement
from cai_jax.parallel.program import Program

KL_TO_BASE = Measure(
    "kl_to_base",
    "nats a response",
    "",
    "KL divergence to the base model, on own samples; estimates of it (k1) may be below 0",
    PROMPT_SETS,
    low=0.0,
)


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means of log-ratios at the temperature of sampling, with bootstrap intervals.

    Both sides are the whole distribution; what the sampler saw is that where it cuts nothing off.
    With top-k, top-p or temperature 0 the samples are others, and it is no estimate of the
    divergence.
    """
    tools = evidence.tools
    for policy, every in evidence.replies.items():
        replies = [reply for reply in every if reply.row.set in PROMPT_SETS]
        nats = np.zeros(len(replies))
        if policy != evidence.plan.policies[0]:
            base = tools.base.completion_logprobs(
                [reply.prompt_ids for reply in replies],
                [reply.completion.ids for reply in replies],
                tools.temperature,
                "evaluate: KL",
            )
            pairs = zip(replies, base, strict=True)
            nats = np.array([np.sum(reply.completion.logprobs - b) for reply, b in pairs])
        for group in PROMPT_SETS:
            chosen = [i for i, reply in enumerate(replies) if reply.row.set == group]
            prompts = [replies[i].row.prompt for i in chosen]
            yield evidence.mean(KL_TO_BASE, policy, group, nats[chosen], prompts)


def programs(tools: Tools) -> list[Program]:
    """Likelihoods under the base model."""
    return tools.base.logprob_programs("likelihoods", tools.temperature)


KL = Evaluator(
    "Distance from the base model", policies, lambda plan: (KL_TO_BASE,), evaluate, programs
)
