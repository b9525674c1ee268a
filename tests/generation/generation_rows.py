"""Prompts and keys for the tests of this folder."""

from cai_jax.keys import named_key

PROMPTS = [[5, 6, 7], list(range(10, 31)), [1], list(range(40, 49)), [2, 2, 2, 2]]
KEYS = [named_key(0, "test", i) for i in range(len(PROMPTS))]
