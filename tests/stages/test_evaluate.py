"""Evaluation of a whole run: what is declared before it is what it measures."""

import json

import pytest
from conftest import ROOT

from cai_jax.evaluation.evaluator import Evaluator, policies
from cai_jax.evaluation.measure import Measure
from cai_jax.evaluation.registry import EVALUATORS, declared_keys
from cai_jax.report.summary import read_summary
from cai_jax.stages import evaluate
from cai_jax.stages.models import POLICIES
from cai_jax.stages.pipeline import stages_of
from cai_jax.stages.runner import fingerprints


@pytest.fixture(autouse=True)
def in_root(monkeypatch):
    monkeypatch.chdir(ROOT)


def test_a_run_measures_what_was_declared_before_it(finished):
    summary = read_summary(finished.workdir.folder("report") / "summary.json")
    declared = declared_keys(evaluate.plan_of(finished.config))
    assert set(summary.evaluation.measurements) == set(declared)
    assert {f"text.finished/{name}/helpful" for name in POLICIES} <= set(declared)
    history = json.loads((finished.workdir.folder("rl") / "history.json").read_text())
    assert summary.evaluation.measurements["rl.kl_k3/last"].mean == history[-1]["kl_k3"]
    audit = summary.feedback["audit"]["audit"]["accuracy"]
    assert summary.evaluation.measurements["labels.accuracy/audit"].mean == audit


def test_the_page_of_a_run_names_its_policies(finished):
    page = (finished.workdir.folder("report") / "index.html").read_text(encoding="utf-8")
    for label, _ in POLICIES.values():
        assert f'<span class="who">{label}</span>' in page
    assert "sl_cai" not in page


def test_a_new_evaluator_redoes_evaluation_alone(finished, monkeypatch):
    before = fingerprints(finished, stages_of(finished.config))
    measure = Measure("length", "characters", "lower", "of a reply", ("helpful",))
    toy = Evaluator("Toy", policies, lambda plan: (measure,), lambda evidence: [])
    monkeypatch.setitem(EVALUATORS, "toy", toy)
    after = fingerprints(finished, stages_of(finished.config))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"evaluate", "report"}
