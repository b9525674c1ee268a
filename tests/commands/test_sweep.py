"""Sweeps: what they refuse, what they compare, and what a failed run costs."""

import csv
import math
import os

import pytest
from conftest import ROOT, load_config, read_config
from ml_collections import ConfigDict

from cai_jax import sweep
from cai_jax.config import ConfigError
from cai_jax.evaluation.statistics import mean_over_seeds
from cai_jax.sweep import Result, check_variations, read_sweep, run_all, write_comparison

FILES = sorted((ROOT / "configs" / "sweeps").glob("*.py"))


def tree(**changes) -> dict:
    """A sweep of two variations, with changes."""
    return {
        "title": "Sizes",
        "axis": "size",
        "seeds": (0, 1),
        "variations": [
            {"name": "small", "changes": {"rl.batch_size": 2}},
            {"name": "large", "changes": {"rl.batch_size": 4}},
        ],
        "measures": [("first", "a.b"), ("last", "a.c.-1")],
        "figure": ("first",),
        "unit": "units",
    } | changes


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_delivered_sweeps_can_start(file):
    found = read_sweep(read_config(f"sweeps/{file.stem}").to_dict(), file.name)
    check_variations(found, ConfigDict(load_config("microworld")), file.name)


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
    found = read_sweep(tree(variations=[{"name": "odd", "changes": changes}]), "sizes.py")
    with pytest.raises(ConfigError, match=rf"sizes.py: variation 'odd': .*{field}"):
        check_variations(found, ConfigDict(load_config("microworld")), "sizes.py")


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
        "if (size, seed) == (4, 1): sys.exit('error: out of luck')\n"
        "out = pathlib.Path(given['config.workdir']) / 'report'\n"
        "out.mkdir(parents=True, exist_ok=True)\n"
        "summary = {'a': {'b': size + seed, 'c': [0, 10 * size]}}\n"
        "(out / 'summary.json').write_text(json.dumps(summary))\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def test_nothing_starts_after_a_sweep_is_stopped(tmp_path, monkeypatch, main_that_fails_once):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep, "write_comparison", stop)
    found = read_sweep(tree(seeds=tuple(range(2, 40))), "sizes.py")
    with pytest.raises(KeyboardInterrupt):
        run_all(found, [], tmp_path, 1)
    assert len(list((tmp_path / "runs").rglob("log.txt"))) < 5


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_failed_run_stops_no_other(tmp_path, monkeypatch, main_that_fails_once, jobs):
    monkeypatch.chdir(tmp_path)
    found = read_sweep(tree(), "sizes.py")
    results = run_all(found, [], tmp_path, jobs)
    by_run = {(r.variation, r.seed): r for r in results}
    assert by_run["small", 1].measures == {"first": 3.0, "last": 20.0}
    assert "out of luck" in by_run["large", 1].error
    assert "log.txt" in by_run["large", 1].error
    rows = list(csv.DictReader((tmp_path / "results.csv").read_text().splitlines()))
    assert [(r["variation"], r["seed"]) for r in rows] == [
        ("small", "0"),
        ("small", "1"),
        ("large", "0"),
        ("large", "1"),
    ]
    assert rows[0]["first"] == "2.0"
    assert "out of luck" in rows[3]["error"]
    assert (tmp_path / "table.md").read_text().splitlines() == [
        "| size | small | large |",
        "| --- | ---: | ---: |",
        "| seeds | 2 | 1 |",
        "| first | 2.50 [-3.85, 8.85] | 4.00 |",
        "| last | 20.00 [20.00, 20.00] | 40.00 |",
    ]
    assert (tmp_path / "figure.svg").read_text().startswith("<svg")


def test_a_measure_that_is_not_there_is_named(tmp_path, monkeypatch, main_that_fails_once):
    monkeypatch.chdir(tmp_path)
    found = read_sweep(tree(measures=[("first", "a.z")]), "sizes.py")
    assert all(
        "no measure at a.z" in r.error or "luck" in r.error for r in run_all(found, [], tmp_path, 1)
    )


def test_jobs_share_the_cores():
    shares = sweep._shares_of_cores(2)
    one, two = shares.get(), shares.get()
    if len(os.sched_getaffinity(0)) > 1:
        assert one | two == os.sched_getaffinity(0)
    assert not one & two


def test_intervals_over_seeds():
    found = mean_over_seeds([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3), rel=1e-5)
    assert math.isnan(mean_over_seeds([1.0]).low)


def test_one_seed_has_no_interval(tmp_path):
    found = read_sweep(tree(seeds=(0,)), "sizes.py")
    write_comparison(found, [Result("small", 0, "", {"first": 1.0, "last": 2.0})], tmp_path)
    assert "| first | 1.00 |" in (tmp_path / "table.md").read_text()
