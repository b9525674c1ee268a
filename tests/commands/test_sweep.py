"""Sweeps: what they refuse, what they compare, and what a failed run costs."""

import csv
import json
import os
from dataclasses import asdict

import pytest
from conftest import ROOT, load_config, read_config
from ml_collections import ConfigDict
from small_summary import summary

from cai_jax import sweep
from cai_jax.config import ConfigError
from cai_jax.evaluation.evaluator import Evaluator, policies
from cai_jax.evaluation.measure import Measure
from cai_jax.evaluation.registry import EVALUATORS
from cai_jax.sweep import Result, check_variations, read_sweep, run_all, write_comparison

FILES = sorted((ROOT / "configs" / "sweeps").glob("*.py"))


def tree(**changes) -> dict:
    """A sweep of two variations, with changes."""
    return {
        "title": "Sizes",
        "axis": "size",
        "seeds": (0, 1),
        "variations": [
            {"name": "small", "changes": {"rl.batch_size": 4}},
            {"name": "large", "changes": {"rl.batch_size": 8}},
        ],
        "measures": [
            ("first", "preference.score/rl_cai/red_team"),
            ("last", "revisions.score/revision {sl_data.rounds}"),
        ],
        "figure": ("first",),
        "unit": "units",
    } | changes


def checked(given: dict, name: str = "sizes.py", *config: str) -> sweep.Sweep:
    base = ConfigDict(load_config(*(config or ("microworld",))))
    return check_variations(read_sweep(given, name), base, name)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_delivered_sweeps_can_start(file):
    preset = ("red_team",) if file.stem == "red_team" else ()
    found = checked(read_config(f"sweeps/{file.stem}").to_dict(), file.name, "microworld", *preset)
    assert all(len(variation.keys) == len(found.measures) for variation in found.variations)


def test_the_sweep_of_labels_is_also_for_models_without_an_oracle():
    found = checked(read_config("sweeps/labels", "model").to_dict(), "labels.py", "rlaif")
    assert [v.name for v in found.variations] == ["soft", "hard", "shuffled", "none"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seeds": ()}, "seeds is empty"),
        ({"extra": 1}, "unknown field 'extra'"),
        ({"figure": ("third",)}, "figure names 'third'"),
        ({"measures": [1]}, "measures must be pairs"),
        ({"variations": [{"name": "a"}]}, r"variations\[0\] must be"),
        ({"variations": [{"name": "a", "changes": {}}] * 2}, "variation 'a'"),
        ({"variations": [{"name": "a/b", "changes": {}}]}, "'a/b': it names a folder"),
        ({"variations": [{"name": 1, "changes": {}}]}, "variation 1: names are texts"),
        ({"variations": [{"name": "..", "changes": {}}]}, "'..': names are texts"),
        ({"seeds": (0, 0)}, "seeds must be different"),
        ({"seeds": 3}, "seeds must be different"),
        ({"seeds": ("a",)}, "seeds must be different"),
    ],
)
def test_a_broken_sweep_file_is_named(changes, words):
    with pytest.raises(ConfigError, match=f"sizes.py: .*{words}"):
        read_sweep(tree(**changes), "sizes.py")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"rl.btch_size": 2}, "config.rl.btch_size"),
        ({"rl.batch_size": "two"}, "config.rl.batch_size"),
        ({"rl.lam": 2}, "config.rl.lam"),
        ({"rll.lam": 1}, "rll.lam"),
        ({"stages": "sl_data"}, "config.stages"),
    ],
)
def test_a_variation_that_cannot_start_is_refused_before_any_run(changes, field):
    with pytest.raises(ConfigError, match=rf"sizes.py: variation 'odd': .*{field}"):
        checked(tree(variations=[{"name": "odd", "changes": changes}]))


@pytest.mark.parametrize(
    ("key", "changes", "nearest"),
    [
        ("preference.scores/rl_cai/red_team", {}, "preference.score/rl_cai/red_team"),
        ("oracle.harmles/rl_cai/red_team", {}, "oracle.harmless/rl_cai/red_team"),
        ("revisions.score/revision 3", {"sl_data.rounds": 2}, "revisions.score/revision 2"),
        ("rl.kl_k3/last", {"rl.algorithm": "dpo"}, "rl."),
        ("labels.accuracy/pairs", {"evaluate.oracle": ""}, "labels.accuracy/audit"),
        ("labels.swap_consistency/audit", {"feedback.method": "contrast"}, "labels."),
        ("oracle.helpful/rl_cai/red_team", {}, "oracle."),  # of requests for harm, none is known
    ],
)
def test_a_measure_that_does_not_exist_is_refused_before_any_run(key, changes, nearest):
    given = tree(
        variations=[{"name": "plain", "changes": {}}, {"name": "odd", "changes": changes}],
        measures=[("first", key)],
    )
    name = "odd" if changes else "plain"
    with pytest.raises(ConfigError, match=rf"sizes.py: variation '{name}': .*{key}") as error:
        checked(given)
    assert f"the nearest is '{nearest}" in str(error.value)


def test_a_measure_follows_the_config():
    rounds = [{"name": str(n), "changes": {"sl_data.rounds": n}} for n in (1, 3)]
    keys = [variation.keys["last"] for variation in checked(tree(variations=rounds)).variations]
    assert keys == ["revisions.score/revision 1", "revisions.score/revision 3"]
    with pytest.raises(ConfigError, match=r"sizes.py: variation 'small': .*zzz"):
        checked(tree(measures=[("first", "rl.kl_k3/{sl_data.zzz}")]))


def test_a_new_evaluator_can_be_compared_by(monkeypatch):
    measure = Measure("length", "characters", "lower", "of a reply", ("helpful",))
    toy = Evaluator("Toy", policies, lambda plan: (measure,), lambda evidence: [])
    monkeypatch.setitem(EVALUATORS, "toy", toy)
    assert checked(tree(measures=[("first", "toy.length/rl_cai/helpful")]))


@pytest.fixture
def main_that_fails_once(monkeypatch, tmp_path):
    """Stands where cai_jax.main stands: writes what it was told, and fails for large, seed 1."""
    package = tmp_path / "package" / "cai_jax"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "main.py").write_text(
        "import json, pathlib, sys\n"
        "given = dict(a[2:].split('=', 1) for a in sys.argv[1:])\n"
        "size, seed = int(given['config.rl.batch_size']), int(given['config.seed'])\n"
        "if (size, seed) == (8, 1): sys.exit('error: out of luck')\n"
        "out = pathlib.Path(given['config.workdir']) / 'report'\n"
        "out.mkdir(parents=True, exist_ok=True)\n"
        "def measured(name, subject, group, mean):\n"
        "    return dict(measure=name, subject=subject, group=group, n=1, mean=mean)\n"
        "summary = json.loads(pathlib.Path('summary.json').read_text())\n"
        "summary['evaluation']['measurements'] = {\n"
        "    'preference.score/rl_cai/red_team': measured('score', 'rl_cai', '', size + seed),\n"
        "    'revisions.score/revision 4': measured('score', 'revision 4', '', 10 * size),\n"
        "}\n"
        "(out / 'summary.json').write_text(json.dumps(summary))\n"
    )
    (tmp_path / "summary.json").write_text(json.dumps(asdict(summary())))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(tmp_path)


def test_nothing_starts_after_a_sweep_is_stopped(tmp_path, monkeypatch, main_that_fails_once):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "write_comparison", stop)
    found = checked(tree(seeds=tuple(range(2, 40))))
    with pytest.raises(KeyboardInterrupt):
        run_all(found, [], tmp_path, 1)
    assert len(list((tmp_path / "runs").rglob("log.txt"))) < 5


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_run_stops_no_other(tmp_path, main_that_fails_once, jobs):
    found = checked(tree())
    results = run_all(found, [], tmp_path, jobs)
    by_run = {(r.variation, r.seed): r for r in results}
    assert by_run["small", 1].measures == {"first": 5.0, "last": 40.0}
    assert "out of luck" in by_run["large", 1].error
    assert "log.txt" in by_run["large", 1].error
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(r["variation"], r["seed"]) for r in rows] == [
        ("small", "0"),
        ("small", "1"),
        ("large", "0"),
        ("large", "1"),
    ]
    assert rows[0]["first"] == "4.0"
    assert "out of luck" in rows[3]["error"]
    assert (tmp_path / "table.md").read_text().splitlines() == [
        "| size | unit | small | large |",
        "| --- | --- | ---: | ---: |",
        "| n | seeds | 2 | 1 |",
        "| first | standard deviations | 4.50 [-1.85, 10.85] | 8.00 |",
        "| last | standard deviations | 40.00 [40.00, 40.00] | 80.00 |",
        "",
        sweep.GIVEN.strip(),
        "",
        "Minus small, paired by seed:",
        "",
        "| size | unit | large |",
        "| --- | --- | ---: |",
        "| n | seeds | 1 |",
        "| first | standard deviations | 4.00 |",
        "| last | standard deviations | 40.00 |",
        "",
        "True differences that so many seeds would have shown with 80 % power:",
        "",
        "| size | unit | large |",
        "| --- | --- | ---: |",
        "| n | seeds | 1 |",
        "| first | standard deviations |  |",
        "| last | standard deviations |  |",
    ]
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")


def test_a_run_that_had_nothing_to_measure_on_is_told(tmp_path, main_that_fails_once):
    key = "revisions.harmless/revision 4"
    results = run_all(checked(tree(measures=[("first", key)])), [], tmp_path, 1)
    assert all(key in r.error or "luck" in r.error for r in results)


def test_differences_are_paired_by_seed(tmp_path):
    """Seeds that differ by more than the variations do not hide a difference."""
    found = read_sweep(tree(), "sizes.py")
    values = {"small": {0: 1.0, 1: 9.0}, "large": {0: 2.0, 1: 10.5, 2: 50.0}}
    results = [
        Result(name, seed, "", {"first": value, "last": 0.0})
        for name, by_seed in values.items()
        for seed, value in by_seed.items()
    ]
    write_comparison(found, results, tmp_path)
    differences = (tmp_path / "table.md").read_text().split("paired by seed:")[1]
    assert "| n | seeds | 2 |" in differences
    assert "| first |  | 1.25 [-1.93, 4.43] |" in differences
    assert "| first |  | 4.08 |" in differences.split("80 % power:")[1]


def test_shares_of_all_seeds_stay_shares(tmp_path):
    """Every seed at 100 %: neither above it, nor certain."""
    given = tree(measures=[("first", "oracle.harmless/rl_cai/red_team")], figure=("first",))
    given["variations"] = [{"name": name, "changes": {}} for name in ("small", "large")]
    results = [
        Result(name, seed, "", {"first": 1.0}, {"first": 50})
        for name in ("small", "large")
        for seed in (0, 1)
    ]
    write_comparison(checked(given), results, tmp_path)
    table = (tmp_path / "table.md").read_text()
    assert "| first | share | 1.00 [0.96, 1.00] | 1.00 [0.96, 1.00] |" in table
    assert "| first | share | 0.00 [-0.03, 0.03] |" in table


def test_stages_are_compared_by_the_seconds_that_they_took(tmp_path, main_that_fails_once):
    given = tree(measures=[("first", "seconds/rl")], seeds=(0,))
    results = run_all(checked(given), [], tmp_path, 1)
    assert [result.measures for result in results] == [{"first": 1.5}] * 2
    with pytest.raises(ConfigError, match="nearest is 'seconds/rl'"):
        checked(tree(measures=[("first", "seconds/r")]))


def test_jobs_share_the_cores():
    shares = sweep._shares_of_cores(2)
    one, two = shares.get(), shares.get()
    if len(os.sched_getaffinity(0)) > 1:
        assert one | two == os.sched_getaffinity(0)
    assert not one & two


def test_one_seed_has_no_interval(tmp_path):
    found = read_sweep(tree(seeds=(0,)), "sizes.py")
    write_comparison(found, [Result("small", 0, "", {"first": 1.0, "last": 2.0})], tmp_path)
    assert "| first |  | 1.00 |" in (tmp_path / "table.md").read_text()
