"""The algorithms by the names that a config knows them by; a new one is a file and an entry."""

from collections.abc import Callable, Mapping
from typing import Any

from cai_jax.rl.algorithm import Algorithm
from cai_jax.rl.grpo import GRPO
from cai_jax.rl.online import online
from cai_jax.rl.ppo import PPO
from cai_jax.rl.rloo import RLOO

# Each is made from the values of the config's block, by field.
ALGORITHMS: dict[str, Callable[[Mapping[str, Any]], Algorithm]] = {
    "ppo": online(PPO),
    "rloo": online(RLOO),
    "grpo": online(GRPO),
}
