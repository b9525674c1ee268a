"""KL between policy and reference: estimators from samples, and the adaptive coefficient."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


def kl_estimates(logprobs: jax.Array, reference: jax.Array) -> tuple[jax.Array, ...]:
    """Per-token estimates k1, k2, k3 of KL(policy || reference), in nats (Schulman 2020).

    For tokens drawn from the policy: k1 = log p/q is unbiased and may be negative; k2 = half its
    square; k3 = q/p - 1 - log q/p is unbiased and never negative.
    """
    log_ratio = logprobs - reference
    return log_ratio, 0.5 * log_ratio**2, jnp.expm1(-log_ratio) + log_ratio


@dataclass(frozen=True)
class AdaptiveKL:
    """Adapts the coefficient to keep the KL near a target (Ziegler et al. 2019, section 2.2)."""

    target: float  # nats per sequence; 0 keeps the coefficient fixed
    horizon: int  # samples over which the coefficient changes by at most 20 %

    def update(self, coef: float, kl: float, samples: int) -> float:
        """The coefficient after ``samples`` sequences with mean KL ``kl``, in nats."""
        if not self.target:
            return coef
        error = min(max(kl / self.target - 1.0, -0.2), 0.2)
        return coef * (1.0 + error * samples / self.horizon)
