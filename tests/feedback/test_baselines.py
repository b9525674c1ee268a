"""What words and lengths alone reach: worked out on pairs whose surface is known."""

import numpy as np
import pytest

from cai_jax.feedback.baselines import baselines
from cai_jax.feedback.labeler import ResponsePair
from cai_jax.prompts.messages import assistant, system, user

WORDS = [f"w{i}" for i in range(40)]


def made(better, worse, opening="{i}", n=40, seed=0):
    """Pairs whose better response stands first or second by chance, and where it stands."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=n).astype(bool)
    pairs = []
    for i, first_is_better in enumerate(truth):
        good, bad = better(rng, i), worse(rng, i)
        sides = (good, bad) if first_is_better else (bad, good)
        pairs.append(ResponsePair(str(i), (user(opening.format(i=i, half=i // 2)),), *sides, ()))
    return pairs, truth.tolist()


def noise(length, *more):
    return lambda rng, i: " ".join([*rng.choice(WORDS, length), *more])


def test_a_word_that_tells_is_found_and_length_is_not():
    found = baselines(*made(noise(6, "sorry"), noise(6, "sure.")))
    assert found.bag_of_words == 1.0
    assert 0.25 < found.length < 0.75
    signs = baselines(*made(noise(6, "!"), noise(6, "?")))  # signs are words, of any script
    assert signs.bag_of_words == 1.0


@pytest.mark.parametrize(
    ("good", "bad"), [("抱歉", "可以"), ("ขอโทษ", "ได้เลย"), ("ごめん", "いいよ")]
)
def test_a_word_is_found_where_none_is_spaced(good, bad):
    letters = [chr(0x4E00 + i) for i in range(40)]
    among = lambda word: lambda rng, i: "".join([*rng.choice(letters, 6), word])
    assert baselines(*made(among(good), among(bad))).bag_of_words == 1.0


@pytest.mark.parametrize(("better", "worse"), [(9, 5), (5, 9)])
def test_length_tells_whichever_way_it_points(better, worse):
    found = baselines(*made(noise(better), noise(worse)))
    assert found.length == 1.0


def test_where_nothing_tells_accuracy_is_near_one_half():
    found = baselines(*made(noise(8), noise(8), n=300))
    assert abs(found.bag_of_words - 0.5) < 0.1
    assert abs(found.length - 0.5) < 0.1


def test_equal_responses_are_half_right():
    assert baselines(*made(lambda rng, i: "yes", lambda rng, i: "yes")).bag_of_words == 0.5
    equal = baselines(*made(lambda rng, i: "to", lambda rng, i: "no"))
    assert equal.length == 0.5


def test_what_opens_alike_is_not_on_both_sides():
    """Each word tells the better response of one opening's two pairs, and is nowhere else."""
    own = lambda side: lambda rng, i: f"{side}{i // 2}"
    alone = baselines(*made(own("good"), own("bad"), opening="{i}"))
    together = baselines(*made(own("good"), own("bad"), opening="{half}"))
    assert alone.bag_of_words > 0.9  # what leaks, were the pairs not grouped
    assert together.bag_of_words == 0.5


def test_openings_are_the_users_alone():
    pairs, truth = made(noise(3, "sorry"), noise(3, "sure"))
    one = [
        ResponsePair(p.id, (system(p.id), user("hi"), assistant("yes"), user(p.id)), *sides, ())
        for p in pairs
        for sides in [(p.first, p.second)]
    ]
    assert baselines(one, truth).bag_of_words == 0.5  # one opening: nothing to learn from
    assert baselines(pairs[:1], truth[:1]).length == 0.5


def test_the_order_of_a_pair_says_nothing():
    pairs, truth = made(noise(6, "sorry"), noise(7))
    swapped = [ResponsePair(p.id, p.prompt, p.second, p.first, ()) for p in pairs]
    assert baselines(swapped, [not t for t in truth]) == baselines(pairs, truth)
    first = [p if t else s for p, s, t in zip(pairs, swapped, truth, strict=True)]
    assert baselines(first, [True] * len(first)) == baselines(pairs, truth)
