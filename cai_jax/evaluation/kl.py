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
    tools, base_policy = evidence.tools, evidence.plan.policies[0]
    replies = {
        policy: [reply for reply in every if reply.row.set in PROMPT_SETS]
        for policy, every in evidence.replies.items()
    }
    # In one call: a prompt that all policies answered is read once.
    others = [
        reply for policy, these in replies.items() if policy != base_policy for reply in these
    ]
    base = iter(
        tools.base.completion_logprobs(
            [reply.prompt_ids for reply in others],
            [reply.completion.ids for reply in others],
            tools.temperature,
            "evaluate: KL",
        )
    )
    for policy, these in replies.items():
        nats = np.zeros(len(these))
        if policy != base_policy:
            nats = np.array([np.sum(r.completion.logprobs - next(base)) for r in these])
        for group in PROMPT_SETS:
            chosen = [i for i, reply in enumerate(these) if reply.row.set == group]
            prompts = [these[i].row.prompt for i in chosen]
            yield evidence.mean(KL_TO_BASE, policy, group, nats[chosen], prompts)


def programs(tools: Tools) -> list[Program]:
    """Likelihoods under the base model."""
    return tools.base.logprob_programs("likelihoods", tools.temperature)


KL = Evaluator(
    "Distance from the base model", policies, lambda plan: (KL_TO_BASE,), evaluate, programs
)
