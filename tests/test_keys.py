"""Random keys from names."""

from hypothesis import given
from hypothesis import strategies as st

from cai_jax.keys import named_key, sampled


def test_keys_come_from_names():
    assert (named_key(0, "a", 1) == named_key(0, "a", 1)).all()
    different = {tuple(named_key(*n)) for n in ((0, "a", 1), (1, "a", 1), (0, "a", 11), (0, "a1"))}
    assert len(different) == 4


@given(st.integers(0, 40), st.integers(1, 40), st.integers(0, 9))
def test_a_sample_is_of_ids_alone(count, most, seed):
    """In order, all where there are no more; whatever else there is displaces nobody but losers."""
    ids = [f"row {i}" for i in range(count)]
    places = sampled(ids, most, seed, "x")
    assert len(places) == min(count, most)
    assert places == sorted(set(places))
    backwards = {ids[::-1][i] for i in sampled(ids[::-1], most, seed, "x")}
    assert backwards == {ids[i] for i in places}
    fewer = {ids[:-1][i] for i in sampled(ids[:-1], most, seed, "x")}
    assert len({ids[i] for i in places} - fewer) <= 1


def test_samples_differ_by_name_and_seed():
    ids = list(map(str, range(1000)))
    one, other, another = (sampled(ids, 100, *key) for key in ((0, "a"), (0, "b"), (1, "a")))
    assert len({*map(tuple, (one, other, another))}) == 3
    assert 20 <= len([i for i in one if i < 300]) <= 40  # no part is preferred
