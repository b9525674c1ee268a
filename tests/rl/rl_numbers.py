"""Numbers for tests of algorithms, worked out in NumPy float64."""

import jax.numpy as jnp
import numpy as np

from cai_jax.rl.advantages import Rewards
from cai_jax.rl.updates import Experience

CONSTANTS = {
    "temperature": 1.0,
    "samples_per_prompt": 1,
    "epochs": 1,
    "minibatches": 1,
    "micro_batches": 1,
    "clip_ratio": 0.2,
    "entropy_coef": 0.0,
}


def experience_of(rng: np.random.Generator) -> tuple[Experience, np.ndarray]:
    """Experience of eight responses of six tokens, and log-probabilities that have moved."""
    shape = (8, 6)
    mask = (rng.random(shape) < 0.8).astype(np.float32)
    old = np.log(rng.uniform(0.05, 0.9, shape)).astype(np.float32)
    new = old + rng.normal(0, 0.3, shape)
    advantages = (rng.normal(size=shape) * mask).astype(np.float32)
    zeros = jnp.zeros(shape, jnp.int32)
    as_array = lambda x: jnp.asarray(x, jnp.float32)
    batch = Experience(
        zeros,
        zeros,
        None,
        as_array(mask),
        as_array(mask),
        as_array(old),
        None,
        as_array(advantages),
        None,
    )
    return batch, new


def rewards_of(score: np.ndarray, penalty: np.ndarray) -> Rewards:
    """Rewards of tokens [b, n]."""
    return Rewards(jnp.asarray(score, jnp.float32), jnp.asarray(penalty, jnp.float32))


def policy_loss_golden(batch: Experience, new: np.ndarray, clip: float) -> tuple[float, np.ndarray]:
    """Clipped surrogate loss and its gradient by the new log-probabilities, token by token."""
    total, grad = 0.0, np.zeros(new.shape)
    for at in np.ndindex(new.shape):
        if not batch.mask_bn[at]:
            continue
        advantage = float(batch.advantages_bn[at])
        ratio = np.exp(np.float64(new[at]) - float(batch.logprobs_bn[at]))
        clipped = min(max(ratio, 1 - clip), 1 + clip)
        whole, cut = -advantage * ratio, -advantage * clipped
        total += max(whole, cut)
        if whole >= cut:
            grad[at] = -advantage * ratio
    return total, grad
