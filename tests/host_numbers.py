"""Losses of five steps and sampled tokens, on the devices of one process or of several.

python tests/host_numbers.py COORDINATOR HOSTS HOST MODEL_FOLDER OUT.npz
"""

import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.learning.losses import preference_loss_sum, sft_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.packing import packed_pairs
from cai_jax.learning.train import Trainable, init_state, make_trainable, train_step
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.config import LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue, PreferenceModel
from cai_jax.models.io.load import load_policy
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel import hosts
from cai_jax.parallel.mesh import make_mesh, put_batch
from cai_jax.rl.ppo import PPO
from cai_jax.rl.rollout import Width, assemble
from cai_jax.rl.updates import prepare, update

FLOAT32 = jnp.dtype(jnp.float32)
STEPS = 5
OPTIMIZER = make_optimizer(1e-3, 1, 1.0)
ALGORITHM = PPO(
    samples_per_prompt=1,
    temperature=0.7,
    gamma=1.0,
    lam=0.95,
    clip_ratio=0.2,
    clip_value=0.2,
    value_coef=0.1,
    entropy_coef=0.01,
    epochs=STEPS,
    minibatches=2,
    micro_batches=1,
)
LORA = LoRAConfig(4, 8.0)
ROWS = 16  # eight devices each have a row of both halves


@cache
def numbers(folder: Path, data: int, fsdp: int, tensor: int) -> dict[str, np.ndarray]:
    """Everything that must not depend on how many devices and processes there are."""
    devices, source = jax.devices()[: data * fsdp * tensor], ModelSource(folder)
    mesh = make_mesh(data, fsdp, tensor, devices)
    plain = Blueprint(Decoder, source.config, FLOAT32)
    load = lambda: load_policy(source, plain, mesh)  # again for each: training reuses the buffers
    policy = load()
    rng = np.random.default_rng(0)
    ids = lambda *shape: rng.integers(3, source.config.vocab_size, shape).astype(np.int32)

    def trainable(seed, **changes):
        return make_trainable(replace(plain, **changes), load().params, mesh, seed)

    out = {}
    ones = np.ones((ROWS, 16), np.int32)
    texts = {"tokens": ids(ROWS, 16), "segments": ones, "loss_mask": ones}
    for name, lora in (("sft", None), ("sft_lora", LORA)):
        out[name] = losses(trainable(0, lora=lora), sft_loss_sum, texts, mesh)
    pairs = {
        "first": ids(ROWS, 16),
        "first_segments": ones,
        "second": ids(ROWS, 16),
        "second_segments": ones,
        "target": rng.random(ROWS).astype(np.float32),
        "weight": np.ones(ROWS, np.float32),
    }
    out["preference"] = losses(
        trainable(1, module=PreferenceModel),
        preference_loss_sum,
        packed_pairs(pairs, 2 * ROWS, 2),
        mesh,
    )

    prompts = [list(ids(3 + i % 6)) for i in range(ROWS)]
    keys = [named_key(0, "prompt", i) for i in range(ROWS)]
    generator = Generator(policy, mesh, (2,), ROWS, bucket_tokens=8)
    samples = generator.generate(prompts, keys, 12, Sampling(ALGORITHM.temperature))
    out["tokens"] = np.concatenate([s.ids for s in samples])
    out["logprobs"] = np.concatenate([s.logprobs for s in samples])
    scored = Scorer(policy, mesh, ROWS).completion_logprobs(
        prompts, [s.ids for s in samples], ALGORITHM.temperature
    )
    out["scored"] = np.concatenate(scored)
    out |= ppo_losses(trainable(1, module=PolicyWithValue), policy, prompts, samples, mesh)
    return out


def losses(trainable: Trainable, loss_sum, batch: dict, mesh) -> np.ndarray:
    state, out = init_state(trainable.params, OPTIMIZER), []
    for _ in range(STEPS):
        with jax.set_mesh(mesh):
            state, metrics = train_step(
                state,
                trainable.frozen,
                put_batch(batch, mesh),
                loss_sum=loss_sum,
                graph=trainable.graph,
                optimizer=OPTIMIZER,
                micro_batches=2,
            )
        metrics = hosts.fetch(metrics)
        out.append([metrics["loss"], metrics["grad_norm"]])
    return np.array(out)


def ppo_losses(
    trainable: Trainable, reference, prompts: list, samples: list[Completion], mesh
) -> dict[str, np.ndarray]:
    scores = np.linspace(-1, 1, len(prompts)).astype(np.float32)
    other = jax.tree.map(lambda x: 1.05 * x, reference.params)  # so that there is a KL
    judged = [max(1, len(s.ids) - i % 3) for i, s in enumerate(samples)]
    rollout = put_batch(assemble(prompts, samples, judged, scores, Width(8, 12)), mesh)
    state = init_state(trainable.params, OPTIMIZER)
    with jax.set_mesh(mesh):
        experience, stats = prepare(
            state.params,
            trainable.frozen,
            other,
            rollout,
            np.float32(0.1),
            policy_graph=trainable.graph,
            reference_graph=reference.graph,
            algorithm=ALGORITHM,
        )
        _, metrics = update(
            state,
            trainable.frozen,
            experience,
            named_key(0, "shuffle"),
            graph=trainable.graph,
            optimizer=OPTIMIZER,
            algorithm=ALGORITHM,
        )
    metrics, stats = hosts.fetch((metrics, stats))
    return {
        "ppo_policy": metrics["policy_loss"],
        "ppo_value": metrics["value_loss"],
        "ppo_grad_norm": metrics["grad_norm"],
        "ppo_entropy": stats["entropy"],
        "ppo_kl": np.array([stats["kl_k1"], stats["kl_k3"]]),
    }


if __name__ == "__main__":
    coordinator, count, host, folder, out = sys.argv[1:]
    with hosts.together(False, coordinator, int(count), int(host), 60, {}, Path(out).parent):
        found = numbers(Path(folder), 2, 2, 2)
    np.savez(out, **found)  # every host has all of it
