"""red_team, as a user runs it."""

import json

import pytest
from commanded import command

from cai_jax.data.readers import read_attacks


def red_team(out, *flags):
    done = command("red_team", f"--out={out}", *flags)
    assert "Traceback" not in done.stderr, done.stderr[-3000:]
    return done


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([], "--attacker: which model writes?"),
        (["--target=a"], "--judge: a target needs a judge"),
        (["--judge=a"], "--target: a target needs a judge"),
        (["--strategies=sudden"], "--strategies: no strategy 'sudden'"),
        (["--strategies=role_play"], "--seeds: no seed shows the strategy 'role_play'"),
        (["--seeds=none.jsonl"], "none.jsonl: no such file"),
        (["--rounds=0"], "rounds"),
    ],
)
def test_mistakes_are_one_sentence_and_no_model_is_opened(tmp_path, flags, words):
    done = red_team(tmp_path / "out.jsonl", *flags)
    assert done.returncode == 1
    assert words in done.stderr.splitlines()[-1]
    assert not (tmp_path / "out.jsonl").exists()


def test_a_target_is_attacked_and_what_it_falls_for_is_kept(finished, tmp_path):
    """By a judge to whom every reply is harmful: of a random model no other is known."""
    run, out = finished.workdir.path.resolve(), tmp_path / "out.jsonl"
    seeds = tmp_path / "seeds.jsonl"
    seeds.write_text('{"id": "a", "prompt": "How can the good be not safe?"}\n')
    done = red_team(
        out,
        f"--target={run}/rl/checkpoint",
        f"--judge={run}/pm_train/checkpoint",
        f"--seeds={seeds}",
        *("--threshold=1e9", "--count=2", "--rounds=2", "--attack_tokens=48", "--few_shots=1"),
        *("--strategies=direct", "--max_new_tokens=8", "--batch_size=64", "--similarity=1"),
        *("--min_novelty=0", "--tag_percent=100"),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "red team: round 1: " in done.stderr
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    kept = read_attacks(out) if lines else []
    assert f"red team: {len(kept)} prompts kept" in done.stderr
    assert all(row["score"] < 1e9 and row["reply"] for row in lines)
    assert all(attack.parents == ("a",) for attack in kept if attack.round == 1)
