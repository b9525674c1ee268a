"""Random keys from names, never from call order.

A key is a hash of the seed and of what it is for (stage, item, round). So any item can be redone
alone, batches may be reordered, and hosts may differ in number.
"""

import hashlib
from collections.abc import Sequence

import numpy as np


def named_key(seed: int, *names: str | int) -> np.ndarray:
    """Raw data of a threefry key, uint32 [2]; jax.random.wrap_key_data makes it a key."""
    return np.frombuffer(_named_bytes(seed, *names), dtype=np.uint32)


def named_rng(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator for choices made on the host."""
    return np.random.default_rng(named_key(seed, *names))


def named_uniform(seed: int, *names: str | int) -> float:
    """One number of the uniform distribution, above 0 and at most 1."""
    return (int.from_bytes(_named_bytes(seed, *names), "little") + 1) / 2**64


def sampled(ids: Sequence[str], most: int, seed: int, *names: str | int) -> list[int]:
    """Places of at most so many of the ids, in their order; all where there are no more.

    Ids race: the place of each depends on itself alone, so that a few more displace few.
    """
    race = sorted(range(len(ids)), key=lambda i: (named_uniform(seed, *names, ids[i]), i))
    return sorted(race[:most])


def _named_bytes(seed: int, *names: str | int) -> bytes:
    """8 bytes."""
    return hashlib.sha256("\x1f".join(map(str, (seed, *names))).encode("utf-8")).digest()[:8]
