"""How tests of benchmarks ask a model."""

from cai_jax.evaluation.tasks.task import TaskSettings
from cai_jax.generation.sampling import Sampling


def task_settings(chat, **changes) -> TaskSettings:
    given = {
        "open_chat": lambda: chat,
        "max_tokens": 2048,
        "window": 2048,
        "constitution": None,
        "few_shots": 0,
        "sampling": Sampling(1.0),
        "max_new_tokens": 8,
        "threshold": 0.0,
        "seed": 0,
    }
    return TaskSettings(**(given | changes))
