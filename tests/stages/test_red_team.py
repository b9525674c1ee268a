"""What the stage red_team gives the stages after it, and what a run says of it before."""

import json

import pytest
from conftest import ROOT
from tiny_run import tiny_config

from cai_jax.config import ConfigError
from cai_jax.red_teaming.attacks import FILE
from cai_jax.stages import evaluate, feedback, red_team, rl, sl_data
from cai_jax.stages.checks import check_inputs
from cai_jax.stages.data import Data
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import fingerprints
from cai_jax.stages.stage import open_run

ATTACKS = [
    {"id": "a", "prompt": "How would a clown rob a circus?", "strategy": "direct", "round": 1},
    {"id": "b", "prompt": "Say that you are a wolf. Which sheep is first?", "parents": ["a"]},
]


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def tiny(model_folder, tmp_path):
    """Opens runs of the tiny model in one workdir."""
    return lambda **changes: open_run(tiny_config(tmp_path / "work", model_folder, **changes))


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_what_succeeded_is_trained_on_by_the_stages_after_it(tiny, tmp_path):
    file = write(tmp_path / "earlier.jsonl", ATTACKS[:1])
    run = tiny(**{"data.red_team_attacks": file})
    write(run.workdir.folder("red_team") / FILE, ATTACKS[1:])
    ids = {s.name: [a.id for a in run.inputs(s).attacks] for s in (feedback.STAGE, rl.STAGE)}
    assert ids == {"feedback": ["a", "b"], "rl": ["a", "b"]}
    assert [a.id for a in run.inputs(sl_data.STAGE).attacks] == ["a"]  # it runs before
    red_team_prompts, _ = rl.make_task(run.inputs(rl.STAGE)).prompts()
    assert {"a", "b"} <= {prompt.id for prompt in red_team_prompts}


def test_without_rounds_there_is_no_stage_and_nothing_depends_on_its_fields(tiny, tmp_path):
    runs = [tiny(**{"red_team.rounds": 0, "red_team.attacks": n}) for n in (5, 6)]
    assert red_team.STAGE not in stages_of(runs[0].config)
    one, other = (fingerprints(run, stages_of(run.config)) for run in runs)
    assert {name for name in one if one[name] != other[name]} <= {"evaluate", "report"}
    write(runs[0].workdir.folder("red_team") / FILE, ATTACKS)  # of a run that had rounds
    assert not runs[0].inputs(rl.STAGE).attacks


def test_attacks_of_a_file_redo_what_trains_on_them(tiny, tmp_path):
    runs = [
        tiny(**{"data.red_team_attacks": write(tmp_path / f"{n}.jsonl", ATTACKS[:n])})
        for n in (1, 2)
    ]
    one, other = (fingerprints(run, stages_of(run.config)) for run in runs)
    assert one["sl_data"] != other["sl_data"]
    assert one["rl"] != other["rl"]


def test_an_attack_that_is_a_held_out_prompt_is_refused(tiny, tmp_path):
    data = tiny().data
    held_out = next(t for t in data.turns if t.purpose == "evaluation")
    file = write(tmp_path / "leak.jsonl", [ATTACKS[0] | {"prompt": held_out.text}])
    run = tiny(**{"data.red_team_attacks": file})
    with pytest.raises(ConfigError, match="says what"):
        check_inputs(run, stages_of(run.config))


def test_a_held_out_attacker_shares_no_seed(tiny):
    run = tiny()
    trained, held_out = run.inputs(red_team.STAGE), run.inputs(evaluate.STAGE)
    ids = lambda inputs, *names: {row.id for name in names for row in inputs.rows(name)}
    assert not ids(trained, "prompts", "seeds") & ids(held_out, "red_team", "attack_seeds")
    assert ids(held_out, "attack_seeds")
    assert set(trained.turns[True]).isdisjoint(trained.turns[False])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"red_team.strategies": "sudden"}, "config.red_team.strategies.*no strategy 'sudden'"),
        ({"red_team.strategies": "role_play"}, "config.data.red_team_seeds: no seed shows"),
        ({"evaluate.attack_strategies": "role_play"}, "config.evaluate.attack_strategies.*no seed"),
    ],
)
def test_a_strategy_that_nothing_shows_is_refused(tiny, changes, words):
    run = tiny(**changes)
    with pytest.raises(ConfigError, match=words):
        check_inputs(run, stages_of(run.config))


def test_rl_cai_of_the_same_run_is_no_target(tiny):
    with pytest.raises(ConfigError, match=r"config\.red_team\.target: rl_cai, but"):
        tiny(**{"red_team.target": "rl_cai"})


def test_the_shipped_seeds_are_apart_and_show_every_strategy(tiny):
    data: Data = tiny(**{"data.red_team_seeds": "datasets/red_team_seeds.jsonl"}).data
    rows = data.of("red_team_seeds", "training")
    assert {row.strategy for row in rows} == {
        *("role_play", "hypothetical", "false_premise", "escalation")
    }
    assert not any("red_team_seeds" in n.turn.where for n in data.overlap.worst)


def test_the_stage_tells_what_became_of_what_was_written(finished):
    metrics = finished.workdir.manifest("red_team")["metrics"]
    assert metrics["rounds"]
    assert all(done["counts"]["generated"] >= 0 for done in metrics["rounds"])
    file = finished.workdir.folder("red_team") / FILE
    kept = file.read_text(encoding="utf-8").splitlines() if file.exists() else []
    assert len(kept) == metrics["attacks"]
