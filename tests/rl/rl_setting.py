"""A tiny policy to be trained by PPO, and advantages by hand, for the tests of this folder."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from conftest import TINY, at_rest, tiny_decoder
from flax import nnx

from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.keys import named_key
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.train import init_state, make_trainable
from cai_jax.models.blueprint import DECODER, Blueprint, Model, inside
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue
from cai_jax.rl.ppo import PPO
from cai_jax.rl.rollout import Width, assemble
from cai_jax.rl.updates import prepare, update


def gae_by_hand(rewards, values, mask, gamma, lam):
    out = np.zeros_like(rewards)
    for b in range(len(rewards)):
        real = np.flatnonzero(mask[b])
        for n, t in enumerate(real):
            total = 0.0
            for steps, u in enumerate(real[n:]):
                after = real[n + steps + 1 :]
                value_next = values[b, after[0]] if len(after) else 0.0
                delta = rewards[b, u] + gamma * value_next - values[b, u]
                total += (gamma * lam) ** steps * delta
            out[b, t] = total
    return out


ALGORITHM = PPO(
    samples_per_prompt=1,
    temperature=0.8,
    gamma=1.0,
    lam=0.95,
    clip_ratio=0.2,
    clip_value=0.2,
    value_coef=0.1,
    entropy_coef=0.0,
    epochs=2,
    minibatches=2,
    micro_batches=2,
)
OPTIMIZER = make_optimizer(1e-2, 0, 1.0, 1e-5)  # one, so that all tests compile one update


class Setting:
    """A tiny policy that is rewarded for the lower half of the vocabulary."""

    def __init__(self, mesh, frozen_layers=0, optimizer=OPTIMIZER):
        self.mesh, self.reference, self.optimizer = mesh, at_rest(tiny_decoder()), optimizer
        blueprint = Blueprint(
            PolicyWithValue, TINY, jnp.dtype(jnp.float32), LoRAConfig(4, 8.0), frozen_layers
        )
        self.reference_graph = replace(blueprint, module=Decoder, lora=None).graph
        self.sampler_graph = replace(blueprint, module=Decoder, frozen_layers=0).graph
        self.trainable = make_trainable(blueprint, self.reference.params, mesh, seed=0)
        self.state = init_state(self.trainable.params, optimizer)

    def rollout(self, iteration):
        decoder = inside(DECODER, nnx.merge_state(self.state.params, self.trainable.frozen))
        prompts = [[1 + i % 5, 2, 3][: 1 + i % 3] for i in range(8)]
        keys = [named_key(0, iteration, i) for i in range(8)]
        sampler = Generator(Model(self.sampler_graph, decoder), self.mesh, [3], 8, 4)
        out = sampler.generate(prompts, keys, 6, Sampling(ALGORITHM.temperature))
        # Stops are rare in random models; cut, so that rows differ in length.
        cut = lambda c, n: Completion(c.ids[:n], c.logprobs[:n], c.finished)
        out = [cut(c, 6 - i % 4) for i, c in enumerate(out)]
        judged = [max(1, len(c.ids) - i % 3) for i, c in enumerate(out)]
        scores = np.array(
            [
                np.mean(np.array(c.ids[:n]) < TINY.vocab_size // 2)
                for c, n in zip(out, judged, strict=True)
            ],
            np.float32,
        )
        return assemble(prompts, out, judged, scores, Width(4, 6))

    def prepare(self, rollout, kl_coef=0.0):
        return prepare(
            self.state.params,
            self.trainable.frozen,
            self.reference.params,
            rollout,
            jnp.float32(kl_coef),
            policy_graph=self.trainable.graph,
            reference_graph=self.reference_graph,
            algorithm=ALGORITHM,
        )

    def update(self, experience, iteration=0, algorithm=ALGORITHM):
        self.state, metrics = update(
            self.state,
            self.trainable.frozen,
            experience,
            named_key(0, "shuffle", iteration),
            graph=self.trainable.graph,
            optimizer=self.optimizer,
            algorithm=algorithm,
        )
        return metrics
