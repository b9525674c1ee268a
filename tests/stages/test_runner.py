"""What redoes a stage, and what does not."""

import json
import os
from dataclasses import replace

import pytest
from conftest import ROOT
from tiny_run import run_all, tiny_config

from cai_jax.config import ConfigError, results_of
from cai_jax.data.readers import Prompt
from cai_jax.models.io import sources
from cai_jax.models.io.sources import stamp
from cai_jax.prompts.messages import user
from cai_jax.stages import rl, sl_data
from cai_jax.stages.checks import check_inputs, check_models
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import fingerprints, run_stages
from cai_jax.stages.stage import open_run


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture
def tiny(model_folder, tmp_path):
    """Opens runs of the tiny model in one workdir."""
    quiet = {"red_team.rounds": 0}  # it reads what everybody says first

    def opened(**changes):
        return open_run(tiny_config(tmp_path / "work", model_folder, **{**quiet, **changes}))

    return opened


def refuse(stages):
    """The same stages, none of which may run."""

    def refusal(name):
        def fail(inputs, folder):
            raise AssertionError(f"{name} was run again")

        return fail

    return [replace(stage, execute=refusal(stage.name)) for stage in stages]


def redone(before, after):
    """Stages whose fingerprints differ."""
    one, other = (fingerprints(run, stages_of(run.config)) for run in (before, after))
    return {name for name in one if one[name] != other[name]}


def edited(path, source, line, change):
    """A copy of a data file with one row changed."""
    rows = (ROOT / source).read_text(encoding="utf-8").splitlines()
    rows[line] = json.dumps(change(json.loads(rows[line])))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return str(path)


def test_a_finished_run_is_not_run_again(finished):
    run_stages(open_run(finished.config), refuse(stages_of(finished.config)))


def test_a_change_reruns_only_what_depends_on_it(finished, model_folder):
    changed = open_run(tiny_config(finished.workdir.path, model_folder, **{"rl.kl_coef": 0.5}))
    with pytest.raises(ConfigError, match=r"config.rl.kl_coef: 0\.\d+ there, 0.5 here"):
        changed.workdir.claim(changed.config)
    with pytest.raises(AssertionError, match="rl was run again"):
        run_stages(changed, refuse(stages_of(changed.config)))


EXECUTION = {
    "rl.micro_batches": 2,
    "sl_train.micro_batches": 2,
    "pm_train.micro_batches": 2,
    "rl.offload": True,
    "model.remat": "dots_saveable",
    "model.attention": "xla",
    "mesh.fsdp": 2,
    "mesh.decode_tensor": 2,
    "generation.batch_size": 4,
    "generation.score_batch_size": 4,
    "generation.score_pack_tokens": 128,
    "model.cache": "/nowhere",
}


@pytest.mark.parametrize("field", EXECUTION)
def test_how_something_is_computed_redoes_nothing(finished, model_folder, field):
    other = {field: EXECUTION[field]} | ({"mesh.tensor": 4} if field == "mesh.fsdp" else {})
    changed = open_run(tiny_config(finished.workdir.path, model_folder, **other))
    changed.workdir.claim(changed.config)
    run_stages(changed, refuse(stages_of(changed.config)))


FROM_FEEDBACK = {"feedback", "pm_train", "second_model", "rl", "evaluate", "report"}
RESULTS = {
    "seed": {"sl_data", "sl_train", *FROM_FEEDBACK},
    "sl_data.rounds": {"sl_data", "sl_train", *FROM_FEEDBACK},
    "sl_data.draw_by_tag": {"sl_data", "sl_train", *FROM_FEEDBACK},
    "feedback.temperature": FROM_FEEDBACK,
    "second_model.helpfulness_pairs": {"second_model", "rl", "evaluate", "report"},
    "pm_train.learning_rate": FROM_FEEDBACK - {"feedback"},
    "rl.minibatches": {*["rl", "evaluate", "report"]},
    "rl.batch_size": {*["rl", "evaluate", "report"]},
    "evaluate.bootstrap_samples": {*["evaluate", "report"]},
    "report.transcripts": {"report"},
}


@pytest.mark.parametrize("field", RESULTS)
def test_what_is_computed_redoes_what_reads_it(tiny, field):
    block = results_of(tiny().config)
    for name in field.split("."):
        block = block[name]
    other = 2 * block if block else 1
    assert redone(tiny(), tiny(**{field: other})) == RESULTS[field]


def number(run, file, purpose, which):
    """Line of a row of a file, by its place among those of a purpose."""
    return run.data.rows(file).index(run.data.of(file, purpose)[which])


def louder(row):
    """The row with a prompt of the same purpose: punctuation does not count."""
    return row | {"prompt": f"{row['prompt']}!!"}


@pytest.mark.parametrize(
    ("purpose", "which", "stages"),
    [
        ("training", 0, "sl_data sl_train feedback pm_train second_model rl evaluate report"),
        ("training", -1, "rl evaluate report"),  # sl_data answers the first four alone
        ("evaluation", 0, "evaluate report"),
        ("evaluation", -1, ""),  # the first four alone are evaluated
        ("development", 0, "rl evaluate report"),  # the policy is chosen on them
    ],
)
def test_a_prompt_redoes_only_the_stages_that_read_it(tiny, tmp_path, purpose, which, stages):
    line = number(tiny(), "helpful_prompts", purpose, which)
    path = edited(tmp_path / "prompts.jsonl", "datasets/helpful_prompts.jsonl", line, louder)
    assert redone(tiny(), tiny(**{"data.helpful_prompts": path})) == set(stages.split())


def test_a_pair_redoes_only_the_stages_that_read_it(tiny, tmp_path):
    line = number(tiny(), "helpfulness_pairs", "training", 0)
    change = lambda row: row | {"chosen": f"Yes. {row['chosen']}"}
    path = edited(tmp_path / "pairs.jsonl", "datasets/helpfulness_pairs.jsonl", line, change)
    after = tiny(**{"data.helpfulness_pairs": path})
    assert redone(tiny(), after) == {"pm_train", "rl", "evaluate", "report"}


def test_a_principle_redoes_only_the_stages_that_read_it(tiny, tmp_path):
    text = (ROOT / "constitutions/harmless.yaml").read_text(encoding="utf-8")
    principle = tiny().data.constitution.feedback[0].id
    path = tmp_path / "constitution.yaml"
    path.write_text(text.replace(principle, f"{principle}-again"), encoding="utf-8")
    after = tiny(**{"constitution.path": str(path)})
    assert redone(tiny(), after) == FROM_FEEDBACK


def test_what_no_model_reads_redoes_nothing(tiny, tmp_path):
    text = (ROOT / "constitutions/harmless.yaml").read_text(encoding="utf-8")
    path = tmp_path / "constitution.yaml"
    path.write_text("# A comment.\n" + text.replace("version: ", "version: 9", 1), encoding="utf-8")
    after = tiny(**{"constitution.path": str(path)})
    assert after.data.constitution.version != tiny().data.constitution.version
    assert redone(tiny(), after) == set()


def test_runs_share_what_they_have_in_common(model_folder, tmp_path):
    """Through the store: the second run repeats no stage, a third only what it changes."""
    shared = {"stage_store": str(tmp_path / "stages"), "stages": "sl_data,sl_train"}
    config = lambda name, **changes: tiny_config(tmp_path / name, model_folder, **shared, **changes)
    run_all(config("one"))
    second = open_run(config("deeper/two"))
    run_stages(second, refuse(stages_of(second.config)))
    policy = second.models.source(str(second.models.checkpoint("sl_train")))
    assert policy.path.samefile(model_folder)
    kept = {p: p.read_bytes() for p in (tmp_path / "stages").rglob("*") if p.is_file()}
    third = open_run(config("three", **{"sl_train.learning_rate": 1e-4}))
    first, *others = stages_of(third.config)
    run_stages(third, [*refuse([first]), *others])
    assert third.workdir.manifest("sl_train") != second.workdir.manifest("sl_train")
    assert all(p.read_bytes() == content for p, content in kept.items())
    # A stage that is redone in its workdir leaves the store's copy alone.
    again = open_run(config("one", **{"sl_train.learning_rate": 2e-4, "rerun_changed": True}))
    run_stages(again, stages_of(again.config))
    assert all(p.read_bytes() == content for p, content in kept.items())


def test_some_principles_are_of_all_of_the_file(tiny):
    few = {"constitution.critique_principles": 4, "constitution.feedback_principles": 1}
    whole, seen = tiny().data.constitution, set()
    for seed in range(12):
        some = tiny(**few, seed=seed).data.constitution
        places = [whole.critique_revision.index(p) for p in some.critique_revision]
        quarter = len(whole.critique_revision) / 4
        assert [int((place + 0.5) / quarter) for place in places] == [0, 1, 2, 3]
        assert len(some.feedback) == 1
        assert some.content_hash() != whole.content_hash()
        seen.add((*places, whole.feedback.index(some.feedback[0])))
    assert len(seen) > 6  # by seed
    every = {"constitution.critique_principles": len(whole.critique_revision)}
    assert tiny(**every).data.constitution == whole
    too_many = tiny(**{"constitution.feedback_principles": 99})
    with pytest.raises(ConfigError, match=r"config.constitution.feedback_principles: 99, but"):
        check_inputs(too_many, stages_of(too_many.config))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("feedback.method", "coin", "config.feedback.method: no method 'coin'; known: contrast"),
        ("rl.algorithm", "luck", "config.rl.algorithm: no algorithm 'luck'; known: ppo"),
        ("sl_data.few_shots", 99, "config.sl_data.few_shots: 99, but the constitution has"),
        ("feedback.principles_per_pair", 99, "config.feedback.principles_per_pair: 99, but only"),
        ("evaluate.oracle", "cai_jax:nothing", "config.evaluate.oracle: 'cai_jax:nothing'"),
        ("sl_data.red_team_prompts", 9999, "config.sl_data.red_team_prompts: 9999, but"),
    ],
)
def test_what_there_is_not_is_refused_before_anything_runs(tiny, field, value, words):
    run = tiny(**{field: value})
    with pytest.raises(ConfigError) as refusal:
        check_inputs(run, stages_of(run.config))
    assert words in str(refusal.value)


def test_a_replaced_model_is_another_model(finished, model_folder):
    stages = stages_of(finished.config)
    before = fingerprints(open_run(finished.config), stages)
    file = model_folder / "model.safetensors"
    held = file.read_bytes()
    file.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    after = fingerprints(open_run(finished.config), stages)
    file.write_bytes(held)  # a clone: what it holds is the same, at another time
    assert all(before[stage.name] != after[stage.name] for stage in stages)
    assert fingerprints(open_run(finished.config), stages) == before


def test_a_large_file_is_known_by_when_it_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "SMALL_FILE", 3)
    for name in ("large", "small"):
        (tmp_path / name).write_text("x" * (4 if name == "large" else 3))
    large, small = stamp(str(tmp_path))
    for name in ("large", "small"):
        os.utime(tmp_path / name, ns=(0, 0))
    assert stamp(str(tmp_path)) == [("large", 4, "0"), small]
    assert large != ("large", 4, "0")


def test_a_stage_without_what_it_needs_is_refused(tiny):
    run = tiny(stages="rl")
    with pytest.raises(ConfigError, match="stage rl needs sl_train"):
        run_stages(run, stages_of(run.config))


@pytest.mark.parametrize(("factor", "least", "most"), [(1.0, 0.0, 0.2), (1000.0, 0.95, 1.0)])
def test_principles_are_drawn_by_tag_where_the_config_says_so(tiny, factor, least, most):
    inputs = tiny(**{"sl_data.draw_by_tag": factor}).inputs(sl_data.STAGE)
    writer = sl_data._Writer(inputs, None, None)
    drafts = [
        sl_data.Draft(Prompt(f"p{i}", (user("How?"),), tags=("drugs",)), 0, "", "")
        for i in range(100)
    ]
    drawn = [writer._draw(draft, 1).principle for draft in drafts]
    assert least <= sum("drugs" in p.tags for p in drawn) / len(drawn) <= most


def test_a_stage_receives_what_it_declares_alone(tiny):
    inputs = tiny().inputs(sl_data.STAGE)
    assert inputs.config.sl_data.rounds
    assert inputs.constitution.critique_revision
    assert not inputs.constitution.feedback
    with pytest.raises(AttributeError, match="rl"):
        _ = inputs.config.rl
    with pytest.raises(KeyError, match="does not declare that it needs rl"):
        inputs.artifact("rl")
    with pytest.raises(KeyError):
        tiny().inputs(rl.STAGE).rows("harmlessness_pairs")


def test_rows_that_do_not_split_over_the_devices_are_told(tiny, caplog):
    check_models(tiny())
    assert not caplog.records
    check_models(tiny(**{"sl_train.batch_size": 6}))
    assert "config.sl_train.batch_size: 6 rows at once do not split over 4 devices" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"sl_train.sequence_length": 16},
            r"s.jsonl, line \d+, row \S+, one of \d+ such rows: .*sl_train\.sequence_length is 16",
        ),
        (
            {"pm_train.sequence_length": 16},
            r"_prompts.jsonl, line .*: \d+ tokens with the longest response, but config.pm_train",
        ),
        (
            {"rl.algorithm": "dpo", "rl.direct.sequence_length": 16},
            r"red_team_prompts.* config.rl\.direct\.sequence_length is 16; raise it to that",
        ),
    ],
)
def test_rows_that_training_has_no_room_for_are_refused_before_anything_runs(
    tiny, changes, message
):
    room = {f"{name}.sequence_length": 1024 for name in ("sl_train", "pm_train", "rl.direct")}
    check_models(tiny(**room))
    with pytest.raises(ConfigError, match=message):
        check_models(tiny(**{**room, **changes}))


@pytest.mark.parametrize("block", ["pm_train", "rl.direct"])
def test_a_pair_that_training_has_no_room_for_is_refused(tiny, tmp_path, block):
    file = tmp_path / "pairs.jsonl"
    text = (ROOT / "datasets" / "helpfulness_pairs.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    file.write_text("\n".join(json.dumps({**row, "chosen": "so " * 200}) for row in rows))
    room = {f"{name}.sequence_length": 1024 for name in ("sl_train", "pm_train", "rl.direct")}
    changes = {"data.helpfulness_pairs": str(file), "rl.algorithm": "dpo", **room}
    check_models(tiny(**changes))
    with pytest.raises(
        ConfigError, match=rf"pairs\.jsonl, line \d+, row he-\d+, .*{block}.*is 200"
    ):
        check_models(tiny(**{**changes, f"{block}.sequence_length": 200}))


def test_a_repository_stays_at_the_commit_that_the_run_began_with(tiny, monkeypatch):
    """The hub is asked once a workdir; another commit is another model."""
    pushed = iter("ab")
    asked = lambda name, cache: f"{name}@{next(pushed) * 40}"
    monkeypatch.setattr("cai_jax.stages.models.pinned", asked)
    one = f"hf:org/name@{'a' * 40}"
    for _ in range(2):
        run = tiny(**{"model.source": "hf:org/name"})
        run.models.pin()
        assert run.models.base_name == one
        assert run.models.identity("hf:org/name") == [one]


def test_the_date_that_templates_write_redoes_all(tiny):
    one, other = (tiny(**{"model.date": date}) for date in ("2024-07-26", "2025-01-01"))
    found = [fingerprints(run, stages_of(run.config)) for run in (one, other)]
    assert not set(found[0].values()) & set(found[1].values())
    with pytest.raises(ConfigError, match=r"config\.model\.date"):
        tiny(**{"model.date": "2024-13-01"})
