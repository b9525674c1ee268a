"""test, diff and lint with a model, as people run them, on shipped files and the tiny model."""

import json
from dataclasses import replace

import pytest
from commanded import command
from conftest import ROOT

from cai_jax.constitution.schema import load_constitution
from cai_jax.constitution.write import to_yaml

HARMLESS = ROOT / "constitutions" / "harmless.yaml"
WORLD = ROOT / "constitutions" / "microworld" / "harmless.yaml"
KIND = ROOT / "constitutions" / "microworld" / "kind.yaml"


def workshop(verb, *arguments):
    return command("constitution", verb, *arguments)


def test_test_scores_every_principle_of_a_shipped_file(tmp_path, model_folder):
    out = tmp_path / "scores.json"
    done = workshop("test", HARMLESS, f"--model={model_folder}", "--others=1", f"--out={out}")
    assert done.returncode == 0, done.stderr
    head, every, *rows = done.stdout.splitlines()
    assert head.split()[:3] == ["principle", "cases", "right"]
    c, answer = load_constitution(HARMLESS), json.loads(out.read_text(encoding="utf-8"))
    ids = ["all", *(p.id for p in c.feedback)]
    assert [row.split()[0] for row in (every, *rows)][: len(ids)] == ids
    assert [row["principle"] for row in answer["principles"]] == ids
    assert len(answer["labels"]) == len(c.cases)
    assert answer["method"] == "contrast"
    for row in answer["principles"]:
        assert row["accuracy_low"] <= row["accuracy"] <= row["accuracy_high"]
        assert row["pairs"] >= 3


def test_test_asks_questions_too(model_folder):
    done = workshop("test", KIND, f"--model={model_folder}", "--method=multiple_choice")
    assert done.returncode == 0, done.stderr
    assert "-" not in done.stdout.splitlines()[1].split()[4:7]  # it has an order, and a bias


def test_diff_says_which_pairs_are_decided_differently(tmp_path, model_folder):
    c = load_constitution(WORLD)
    turned = [replace(p, principle=p.opposite, opposite=p.principle) for p in c.feedback]
    (tmp_path / "new.yaml").write_text(to_yaml(replace(c, feedback=tuple(turned))))
    pairs = tmp_path / "pairs.jsonl"
    shipped = ROOT / "datasets" / "microworld" / "harmlessness_pairs.jsonl"
    pairs.write_text("".join(shipped.read_text().splitlines(keepends=True)[:12]))
    new = tmp_path / "new.yaml"
    done = workshop("diff", WORLD, new, f"--pairs={pairs}", f"--model={model_folder}")
    assert done.returncode == 0, done.stderr
    assert "  ~ safest" in done.stdout
    assert "decisions: 12 of 12 pairs differ, 100% [" in done.stdout


def test_lint_finds_principles_that_label_the_opposite_way(tmp_path, model_folder):
    c = load_constitution(HARMLESS)
    (first, second, *_) = c.feedback
    about = {"question": "Would a stranger nod at it?", "id": "zigzag"}
    turned = replace(first, principle=first.opposite, opposite=first.principle, **about)
    cases = tuple(replace(case, principles=(first.id,)) for case in c.cases[:30])
    small = replace(c, feedback=(first, second, turned), cases=cases)
    path = tmp_path / "it.yaml"
    path.write_text(to_yaml(small), encoding="utf-8")
    done = workshop("lint", path, f"--model={model_folder}")
    assert done.returncode == 1
    (found,) = [line for line in done.stdout.splitlines() if ": contrary-labels: " in line]
    line = 1 + path.read_text().splitlines().index("  - id: zigzag")
    assert found.startswith(f"{path}:{line}: contrary-labels: zigzag labels 30 pairs the opposite")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("test", HARMLESS), "--model: of which model? name its source"),
        (("diff", WORLD, KIND, "--model=x"), "--pairs: which pairs is the model to judge?"),
    ],
)
def test_mistakes_are_one_line_before_any_model(arguments, words):
    done = workshop(*arguments)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert words in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
