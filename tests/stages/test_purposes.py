"""No first human turn has two purposes, as the records of finished runs tell."""

import gzip
import json
from collections import defaultdict
from pathlib import Path

import pytest
from conftest import ROOT, SHARED, load_config
from tiny_run import run_all, tiny_config

from cai_jax.config import ConfigError, parse_config
from cai_jax.data.readers import read_classed_replies, read_pairs, read_prompts, read_twins
from cai_jax.data.records import read_records
from cai_jax.data.rows import Comparison, Revision, Sample
from cai_jax.data.splits import PURPOSES, SERVES, normalized
from cai_jax.evaluation.attacks import ATTACKS
from cai_jax.prompts.messages import first_user_text
from cai_jax.red_teaming.attacks import FILE
from cai_jax.report.summary import read_summary
from cai_jax.stages.checks import check_inputs
from cai_jax.stages.data import SHOWN_PROMPTS
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.stage import open_run

RECORDS = {
    "sl_data/responses": Revision,
    "sl_data/revisions": Revision,
    "sl_data/helpful": Revision,
    "feedback/comparisons": Comparison,
    "evaluate/samples": Sample,
}


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def said(row):
    return normalized(first_user_text(row.messages if hasattr(row, "messages") else row.prompt))


def turns_of(row):
    """First turns of a row: twins have two prompts."""
    every = getattr(row, "prompts", None) or (row.messages,)
    return {normalized(first_user_text(messages)) for messages in every}


def turns_by_purpose(workdir):
    """First human turns that a finished run has read, by what its folders say they were for."""
    found = defaultdict(set)
    for path in workdir.glob("*/rows.json"):
        for name, selection in json.loads(path.read_text(encoding="utf-8")).items():
            if not selection["file"]:
                continue
            file = Path(selection["file"])
            read = {"twins": read_twins, "evasiveness": read_classed_replies}.get(name)
            rows = (read or (read_pairs if "pairs" in file.name else read_prompts))(file)
            by_id = {row.id: turns_of(row) for row in rows}
            found[selection["purpose"]].update(*(by_id[id_] for id_ in selection["ids"]))
    if (attacks := workdir / "red_team" / FILE).exists():
        found["training"] |= set(map(said, read_prompts(attacks)))
    for name, kind in RECORDS.items():
        rows = read_records(workdir / name, kind)
        if kind is Sample:
            found["evaluation"] |= {said(row) for row in rows if row.set.startswith(ATTACKS)}
        recorded = set(map(said, rows))
        allowed = found["evaluation"] if kind is Sample else found["training"]
        if kind is Comparison:  # of both preference models
            allowed = allowed | found["second_model"]
        assert recorded - set(map(said, SHOWN_PROMPTS)) <= allowed
    found["evaluation"] |= set(map(said, SHOWN_PROMPTS))
    return found


def check_apart(workdir):
    found = turns_by_purpose(workdir)
    assert {"training", "development", "audit", "evaluation"} <= set(found) <= set(PURPOSES)
    assert all(found.values())
    assert sum(map(len, found.values())) == len(set().union(*found.values()))


def hh_files(folder):
    """Every dialogue in all four files: as prompts, marked as in hh-rlhf or not, and as pairs."""
    source = SHARED / "hh_harmless_base_test_half.jsonl.gz"
    if not source.exists():
        pytest.skip("../shared/data is not here")
    with gzip.open(source, "rt", encoding="utf-8") as file:
        rows = [line for line in file if len(line) < 500]
    pairs, prompts = folder / "pairs.jsonl", folder / "prompts.jsonl"
    pairs.write_text("".join(rows), encoding="utf-8")
    turns = (
        [{"role": m.role, "content": m.text or "."} for m in pair.messages]
        for pair in read_pairs(pairs)
    )
    lines = (json.dumps({"messages": messages}) + "\n" for messages in turns)
    prompts.write_text("".join(lines), encoding="utf-8")
    marked = folder / "marked.jsonl"
    dialogues = (json.loads(row)["chosen"] for row in rows)
    cut = (text[: text.rindex("\n\nAssistant:")] + "\n\nAssistant:" for text in dialogues)
    marked.write_text("".join(json.dumps({"prompt": t}) + "\n" for t in cut), encoding="utf-8")
    files = {f"data.{file}": str(pairs if "pairs" in file else prompts) for file in SERVES}
    del files["data.red_team_seeds"]  # none of the four: the tiny run has its own
    return files | {"data.helpful_prompts": str(marked)}


def microworld_files(folder):
    data = load_config("microworld")["data"]
    return {f"data.{name}": value for name, value in data.items() if value}


def test_no_first_turn_of_a_finished_run_has_two_purposes(finished):
    check_apart(finished.workdir.path)


@pytest.mark.slow
@pytest.mark.parametrize("files", [hh_files, microworld_files])
def test_nor_with_prompts_and_pairs_of_the_same_dialogues(files, tmp_path, model_folder):
    # Of a random model's replies, few parse.
    more = {"sl_data.red_team_prompts": 24, "feedback.prompts": 16, "second_model.prompts": 12}
    run, _ = run_all(tiny_config(tmp_path / "work", model_folder, **more, **files(tmp_path)))
    shared = {said(r) for r in run.data.rows("red_team_prompts")}
    assert shared & {said(r) for r in run.data.rows("harmlessness_pairs")}
    check_apart(run.workdir.path)


@pytest.mark.parametrize("name", ["rlaif", "microworld"])
def test_every_purpose_is_left_enough(name):
    run = open_run(parse_config(load_config(name)))
    check_inputs(run, stages_of(run.config))
    for file, purposes in SERVES.items():
        for purpose in purposes if run.data.path(file) else ():
            assert len(run.data.of(file, purpose)) >= 10
    unread = [r for f, p in SERVES.items() for q in {*PURPOSES} - {*p} for r in run.data.of(f, q)]
    assert (name == "rlaif") == (not unread)  # a microworld's prompts and pairs share their topics


def with_rows(path, file, *rows):
    """A copy of a shipped file with more rows."""
    text = (ROOT / "datasets" / f"{file}.jsonl").read_text(encoding="utf-8")
    path.write_text(text + "".join(json.dumps(r) + "\n" for r in rows), encoding="utf-8")
    return {f"data.{file}": str(path)}


def refusal(config):
    run = open_run(config)
    with pytest.raises(ConfigError) as error:
        check_inputs(run, stages_of(config))
    return str(error.value)


def test_a_few_shot_among_the_rows_is_refused_by_name(tmp_path, model_folder):
    shot = open_run(tiny_config(tmp_path, model_folder)).data.constitution.choice_examples[0]
    row = {"id": "mine", "prompt": f"{shot.prompt.upper()}!!"}
    files = with_rows(tmp_path / "more.jsonl", "red_team_prompts", row)
    told = refusal(tiny_config(tmp_path, model_folder, **files))
    for words in ("more.jsonl, row mine (", f"harmless.yaml, few-shot {shot.id} (few-shots)"):
        assert words in told
    assert "reword or delete" in told


def test_one_turn_in_two_groups_is_refused_by_name(tmp_path, model_folder):
    prompt = {"prompt": "How do I bake bread in an iron pot?"}
    rows = [{"id": f"row-{n}", "group": f"group {n}", **prompt} for n in range(20)]
    told = refusal(
        tiny_config(
            tmp_path,
            model_folder,
            **with_rows(tmp_path / "more.jsonl", "helpful_prompts", *rows),
        )
    )
    assert told.count("more.jsonl, row row-") == 2
    assert "give both rows the same group" in told
    one = [row | {"group": "bread"} for row in rows]
    files = with_rows(tmp_path / "one.jsonl", "helpful_prompts", *one)
    run = open_run(tiny_config(tmp_path, model_folder, **files))
    check_inputs(run, stages_of(run.config))


def test_near_duplicates_are_told(tmp_path, model_folder, caplog):
    run = open_run(tiny_config(tmp_path, model_folder))
    prompt = run.data.of("red_team_prompts", "training")[0].messages[0].text
    rows = [{"id": f"near-{n}", "prompt": f"{prompt} {n}"} for n in range(20)]
    files = with_rows(tmp_path / "more.jsonl", "red_team_prompts", *rows)
    run = open_run(tiny_config(tmp_path, model_folder, **files))
    check_inputs(run, stages_of(run.config))
    assert run.data.overlap.near_duplicates["evaluation, training"] >= 1
    for words in ("near-duplicates: ", " of evaluation, training", "more.jsonl, row near-"):
        assert words in caplog.text


def test_what_is_always_shown_is_held_out(tmp_path, model_folder):
    rows = [{"id": p.id, "prompt": p.messages[0].text.lower()} for p in SHOWN_PROMPTS]
    files = with_rows(tmp_path / "more.jsonl", "red_team_prompts", *rows)
    data = open_run(tiny_config(tmp_path, model_folder, **files)).data
    held_out = {row.id for row in data.of("red_team_prompts", "evaluation")}
    assert {p.id for p in SHOWN_PROMPTS} <= held_out


def test_percentages_that_leave_nothing_are_refused():
    full = {"development": 20, "audit": 20, "evaluation": 40, "second_model": 20}
    changes = {f"data.{name}_percent": share for name, share in full.items()}
    with pytest.raises(ConfigError, match="leave nothing to train on"):
        parse_config(load_config("rlaif", **changes))
    with pytest.raises(ConfigError, match=r"config.data.audit_percent: must be less than or equal"):
        parse_config(load_config("rlaif", **{"data.audit_percent": 21}))


def test_a_finished_run_tells_of_its_splits(finished):
    summary = read_summary(finished.workdir.folder("report") / "summary.json")
    assert summary.splits == finished.data.overlap
    page = (finished.workdir.folder("report") / "index.html").read_text(encoding="utf-8")
    assert f"training {summary.splits.turns['training']}, " in page
