"""Random keys from names."""

from cai_jax.keys import named_key


def test_keys_come_from_names():
    assert (named_key(0, "a", 1) == named_key(0, "a", 1)).all()
    different = {tuple(named_key(*n)) for n in ((0, "a", 1), (1, "a", 1), (0, "a", 11), (0, "a1"))}
    assert len(different) == 4
