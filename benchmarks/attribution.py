"""Whether `explain` finds the principle that alone can have caused a behaviour, in planted worlds.

    python benchmarks/attribution.py                  # minutes on two cores

Each world (cai_jax/microworld/planted.py) has six principles, one of which likes the behaviour
that a played policy shows. Writes benchmarks/results/attribution.json: for each world the cause,
its rank by the lead that is lost without a source of labels, and what is lost without each.
"""

import json
from dataclasses import asdict
from pathlib import Path

import jax
from absl import flags

from cai_jax.commands.front import start
from cai_jax.microworld.planted import attribute, planted_world
from cai_jax.parallel.mesh import make_mesh

WORLDS = flags.DEFINE_integer("worlds", 10, "how many are tried", lower_bound=1)
OUT = Path(__file__).parent / "results" / "attribution.json"


def main() -> None:
    """Tries the worlds, and writes what was found, after each."""
    mesh, worlds, first = make_mesh(1, 1, 1, jax.devices()[:1]), [], 0
    for number in range(WORLDS.value):
        world = planted_world(number)
        found = attribute(world, mesh)
        order = sorted(found.lead_lost, key=lambda name: -found.lead_lost[name])
        rank = 1 + order.index(world.cause)
        lost = {name: round(found.lead_lost[name], 4) for name in order}
        preferred = round(found.preferred, 3)
        worlds.append(asdict(world) | {"rank": rank, "lead_lost": lost, "preferred": preferred})
        print(
            f"world {number}: {world.behaviour}, by {world.cause}, rank {rank}: {lost}", flush=True
        )
        first = sum(world["rank"] == 1 for world in worlds)
        text = {"worlds": len(worlds), "first": first, "each": worlds}
        OUT.write_text(json.dumps(text, indent=1) + "\n", encoding="utf-8")
    print(f"the cause ranks first in {first} of {len(worlds)} planted worlds")


if __name__ == "__main__":
    start(main)
