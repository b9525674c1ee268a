"""What an oracle, where the config names one, says of replies.

An oracle is a function from the messages of a prompt and a reply to measures, numbers by name; it
may know none for a prompt. Its module lists them in ``MEASURES``, with the sets of prompts that
have them, so that whoever asks for a measure learns before any work whether there is one. The
measure ``merit``, if there is one, orders replies as they ought to be preferred.
"""

import sys
from collections.abc import Iterable, Iterator

from cai_jax.evaluation.evaluator import Evaluator, Evidence, Oracle, policies
from cai_jax.evaluation.measure import Measure, Measurement
from cai_jax.prompts.messages import Dialogue


def oracle_measures(oracle: Oracle) -> tuple[Measure, ...]:
    """What an oracle may measure.

    Raises:
      ValueError: its module does not list it.
    """
    name = oracle.__module__
    found = getattr(sys.modules[name], "MEASURES", None)
    if not isinstance(found, tuple) or not all(isinstance(m, Measure) for m in found):
        raise ValueError(
            f"{name}: an oracle's module must list what it measures; add MEASURES, a tuple of "
            "cai_jax.evaluation.measure.Measure"
        )
    return found


def values_by_measure(
    oracle: Oracle, replies: Iterable[tuple[Dialogue, str]]
) -> dict[str, dict[int, float]]:
    """Values of every measure, by the number of the (prompt, reply) pairs that have it.

    Raises:
      ValueError: the oracle gives what its module does not list.
    """
    found: dict[str, dict[int, float]] = {m.name: {} for m in oracle_measures(oracle)}
    for number, (prompt, reply) in enumerate(replies):
        for name, value in oracle(prompt, reply).items():
            if name not in found:
                raise ValueError(
                    f"{oracle.__module__}: the oracle gives {name!r}, which is not in MEASURES; "
                    "add it"
                )
            found[name][number] = value
    return found


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Means over the replies that have the measure."""
    if evidence.oracle:
        for policy, group, replies in evidence.by_set():
            said = [(reply.row.prompt, reply.row.response) for reply in replies]
            values = values_by_measure(evidence.oracle, said)
            for measure in evidence.plan.oracle:
                if group in measure.groups and (found := values[measure.name]):
                    prompts = [said[number][0] for number in found]
                    yield evidence.mean(measure, policy, group, list(found.values()), prompts)


ORACLE = Evaluator("By the oracle", policies, lambda plan: plan.oracle, evaluate)
