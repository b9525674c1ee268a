"""The RL core against libraries that compute the same."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import TINY

from cai_jax.learning.logprobs import logprobs_of_hidden
from cai_jax.learning.losses import bradley_terry_loss
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.rl.advantages import generalized_advantages
from cai_jax.rl.kl import kl_estimates
from cai_jax.rl.updates import clipped_surrogate

RNG = np.random.default_rng(1)


def test_bradley_terry_is_optax_binary_cross_entropy():
    margin, target = RNG.normal(scale=4, size=50), RNG.uniform(size=50)
    expected = optax.sigmoid_binary_cross_entropy(jnp.asarray(margin), target)
    np.testing.assert_allclose(bradley_terry_loss(margin, target), expected, rtol=1e-5)


@pytest.mark.parametrize("temperature", [0.4, 1.7])
def test_logprobs_are_optax_cross_entropy(decoder, temperature):
    tokens = jnp.asarray(RNG.integers(0, TINY.vocab_size, (3, 17)))
    ones = jnp.ones_like(tokens)
    hidden = decoder.hidden(tokens, ones)
    logits = decoder.logits(hidden)[:, :-1] / temperature
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, tokens[:, 1:])
    ours = logprobs_of_hidden(decoder, hidden, tokens, ones, temperature).logprobs_bt[:, 1:]
    np.testing.assert_allclose(ours, -loss, atol=1e-4)


def test_kl_estimates_average_to_scipy_relative_entropy():
    from scipy.special import rel_entr

    p, q = RNG.dirichlet(np.ones(12)), RNG.dirichlet(np.ones(12))
    k1, _, k3 = kl_estimates(jnp.log(p), jnp.log(q))
    for estimate in (k1, k3):
        np.testing.assert_allclose(
            np.sum(p * np.asarray(estimate)), rel_entr(p, q).sum(), rtol=1e-4
        )


@pytest.mark.reference
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.97, 0.6)])
def test_advantages_are_those_of_rlax(gamma, lam):
    rlax = pytest.importorskip("rlax", reason="pip install '.[reference]' to compare")
    rewards, values = RNG.normal(size=(2, 11)).astype(np.float32)
    for length in (1, 4, 11):
        mask = np.arange(11) < length
        ours = generalized_advantages(rewards[None], values[None], mask[None], gamma, lam)[0]
        theirs = rlax.truncated_generalized_advantage_estimation(
            jnp.asarray(rewards[:length]),
            jnp.full(length, gamma),
            lam,
            jnp.append(values[:length], 0.0),  # nothing follows the end
        )
        np.testing.assert_allclose(ours[:length], theirs, atol=1e-5)
        assert not np.any(ours[length:])


@pytest.mark.reference
def test_surrogate_is_that_of_rlax():
    rlax = pytest.importorskip("rlax", reason="pip install '.[reference]' to compare")
    ratio, advantage = np.exp(RNG.normal(scale=0.4, size=60)), RNG.normal(size=60)
    ratio, advantage = (jnp.asarray(x, jnp.float32) for x in (ratio, advantage))
    ours = lambda r: jnp.mean(clipped_surrogate(r, advantage, 0.85, 1.15))
    theirs = lambda r: rlax.clipped_surrogate_pg_loss(r, advantage, 0.15)
    np.testing.assert_allclose(ours(ratio), theirs(ratio), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(ours)(ratio), jax.grad(theirs)(ratio), atol=1e-6)


@pytest.mark.reference
def test_updates_are_those_of_torch():
    torch = pytest.importorskip("torch", reason="pip install '.[reference]' to compare")
    start, gradients = RNG.normal(size=7), RNG.normal(scale=3, size=(5, 7))
    theirs = torch.tensor(start, requires_grad=True)
    adam = torch.optim.Adam([theirs], lr=0.02, betas=(0.9, 0.95), eps=1e-5)
    optimizer = make_optimizer(0.02, 0, 1.5, adam_eps=1e-5)
    ours = jnp.asarray(start)
    state = optimizer.init(ours)
    for gradient in gradients:
        theirs.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_([theirs], 1.5)
        adam.step()
        updates, state = optimizer.update(jnp.asarray(gradient), state, ours)
        ours = optax.apply_updates(ours, updates)
        np.testing.assert_allclose(ours, theirs.detach().numpy(), atol=1e-5)
