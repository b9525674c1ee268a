"""The algorithms by the names that a config knows them by; a new one is a file and an entry."""

from cai_jax.rl.ppo import PPO
from cai_jax.rl.updates import OnlineAlgorithm

# Dataclasses whose fields are constants of the config.
ALGORITHMS: dict[str, type[OnlineAlgorithm]] = {"ppo": PPO}
