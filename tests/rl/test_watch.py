"""When the second preference model looks, what it chooses, and when it stops RL."""

from dataclasses import replace

import numpy as np
import pytest

from cai_jax.generation.engine import Completion
from cai_jax.rl.prompts import Drawn
from cai_jax.rl.watch import Alarms, Look, Watch, degenerate


class Judge:
    """Scores every reply alike."""

    class chat:
        is_text = staticmethod(lambda ids: False)
        text = staticmethod(lambda ids: "\n".join(f"word {i}" for i in ids))

    def __call__(self, ids, replies, name):
        return np.full(len(ids), 2.0, np.float32)


def watch(seconds, patience=0, every=2):
    """That has seen these scores by the second model, the first of them SL-CAI's."""
    looks = [Look(every * n, [9.0 * n], [score], ["so"]) for n, score in enumerate(seconds)]
    return Watch(every, patience, [], None, 0.0, lambda iteration, params: None, looks)


def test_it_looks_now_and_then_and_at_the_end():
    assert [i for i in range(1, 8) if watch([]).due(i, 7)] == [2, 4, 6, 7]


@pytest.mark.parametrize(
    ("seconds", "best"),
    [([0, 1, 2, 1], 4), ([5, 1, 2, 2], 4), ([0, 3, 2, 1], 2), ([0, -1], 2)],
)
def test_the_second_model_chooses_among_trained_policies(seconds, best):
    """Whatever the reward says, which rises all the time; the earliest of equals."""
    assert watch(seconds).best.iteration == best


@pytest.mark.parametrize(
    ("seconds", "patience", "stops"),
    [
        ([0, 3, 2, 1], 2, True),
        ([0, 3, 2, 1], 3, False),
        ([0, 3, 2, 4], 1, False),
        ([0, 3, 2, 1], 0, False),
        ([0], 1, False),
        ([], 1, False),
    ],
)
def test_it_stops_after_looks_that_were_no_better(seconds, patience, stops):
    assert watch(seconds, patience).stops == stops


def test_a_reply_without_an_end_pays_as_in_training():
    seen = watch([])
    reward = Judge()
    looking = replace(
        seen, prompts=[Drawn("a", [1]), Drawn("b", [1])], second=reward, missing_stop_penalty=0.5
    )
    ends = [Completion([5], np.zeros(1, np.float32), finished) for finished in (True, False)]
    looking.look(2, reward, ends)
    (seen,) = looking.looks
    assert seen.second == seen.reward == [2.0, 1.5]
    shown = looking.shown(reward.chat, seen)
    assert shown == dict.fromkeys(["replies/a", "replies/b"], "    word 1\n\n---\n\n    word 5")


def test_the_gap_is_of_the_means():
    assert Look(3, [1.0, 3.0], [0.0, 1.0], []).gap == 1.5


ALARMS = Alarms(kl=10.0, sampler_gap=0.05, degenerate=0.9)
QUIET = {"kl_k3": 10.0, "sampler_gap_mean": 0.05, "empty": 0.9, "equal": 0.9, "endless": 0.9}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({"kl_k3": 10.1}, "10.1 nats a response from SL-CAI, above max_kl"),
        ({"sampler_gap_mean": 0.1}, "above max_sampler_gap"),
        ({"empty": 1.0}, "100% of the responses are empty, above max_degenerate"),
        ({"equal": 1.0}, "are one and the same"),
        ({"repeating": 0.95}, "95% of the responses repeat themselves"),
        ({"endless": 1.0}, "never end"),
    ],
)
def test_an_iteration_out_of_bounds_is_told(found, words):
    (alarm,) = ALARMS.of(QUIET | found)
    assert words in alarm
    assert not ALARMS.of(QUIET)
    assert not ALARMS.of({})  # of an iteration that was left out


def completions(*texts):
    return [Completion(ids, np.zeros(len(ids), np.float32), ids[-1:] == [2]) for ids in texts]


def test_degenerate_responses_are_counted_by_kind():
    loop, counting = [5, 6, 7, 8] * 6, list(range(10, 34))
    found = degenerate(completions([2], [5, 6, 2], [5, 6, 2], loop, [*counting, 2]))
    assert found == {"empty": 0.2, "equal": 0.4, "repeating": 0.2, "endless": 0.2}
