"""What an oracle, where the config names one, says of replies.

An oracle is a function from the messages of a prompt and a reply to measures, numbers by name; it
may know none for a prompt. Its module lists the names in ``MEASURES``, so that whoever asks for a
measure learns before any work whether there is one. The measure ``merit``, if there is one, orders
replies as they ought to be preferred.
"""

import sys
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from cai_jax.prompts.messages import Message

Oracle = Callable[[Sequence[Message], str], dict[str, float]]
Estimate = Callable[[np.ndarray], dict[str, float]]


def oracle_measures(oracle: Oracle) -> tuple[str, ...]:
    """Names of the measures that an oracle may return.

    Raises:
      ValueError: its module does not list them.
    """
    module = sys.modules[oracle.__module__]
    names = getattr(module, "MEASURES", None)
    if not isinstance(names, tuple):
        raise ValueError(
            f"{module.__name__}: an oracle's module must list the names of its measures; add a "
            "tuple MEASURES"
        )
    return names


def measure_replies(
    oracle: Oracle, pairs: Iterable[tuple[Sequence[Message], str]], estimate: Estimate
) -> dict[str, dict[str, float]]:
    """Mean of every measure, with its interval, over the (prompt, reply) pairs that have it."""
    found: dict[str, list[float]] = {}
    for prompt, reply in pairs:
        for name, value in oracle(prompt, reply).items():
            found.setdefault(name, []).append(value)
    return {name: estimate(np.array(values)) for name, values in sorted(found.items())}
