"""Attribution in worlds whose truth is planted; benchmarks/attribution.py tries ten of them."""

import pytest

from cai_jax.microworld.planted import BEHAVIOURS, PRINCIPLES, attribute, planted_world


def test_causes_and_behaviours_vary_and_nobody_else_likes_the_behaviour():
    worlds = [planted_world(number) for number in range(10)]
    assert {world.behaviour for world in worlds} == set(BEHAVIOURS)
    assert len({world.cause for world in worlds}) >= 4
    for world in worlds:
        assert set(world.tastes) == set(PRINCIPLES)
        likes = [name for name, taste in world.tastes.items() if taste == world.behaviour]
        assert likes == [world.cause]


@pytest.mark.slow
def test_the_cause_ranks_first(mesh):
    world = planted_world(0)
    found = attribute(world, mesh, pairs=500, epochs=4)
    assert max(found.lead_lost, key=found.lead_lost.get) == world.cause, (world, found)
