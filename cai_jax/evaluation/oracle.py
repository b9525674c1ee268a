"""What an oracle, where the config names one, says of replies.

An oracle is a function from a prompt and a reply to measures, numbers by name; it may know none for
a prompt. The measure ``merit``, if there is one, orders replies as they ought to be preferred.
"""

from collections.abc import Callable, Iterable

import numpy as np

Oracle = Callable[[str, str], dict[str, float]]
Estimate = Callable[[np.ndarray], dict[str, float]]


def measure_replies(
    oracle: Oracle, pairs: Iterable[tuple[str, str]], estimate: Estimate
) -> dict[str, dict[str, float]]:
    """Mean of every measure, with its interval, over the (prompt, reply) pairs that have it."""
    found: dict[str, list[float]] = {}
    for prompt, reply in pairs:
        for name, value in oracle(prompt, reply).items():
            found.setdefault(name, []).append(value)
    return {name: estimate(np.array(values)) for name, values in sorted(found.items())}
