"""Constitutions and principles compared by what a real, if random, model decides under them."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import ROOT

from cai_jax.constitution.schema import load_constitution
from cai_jax.evaluation.cases import pairs_of
from cai_jax.evaluation.decisions import as_text, compare_decisions, contrary_principles, labels_of
from cai_jax.feedback.contrast import LikelihoodContrast
from cai_jax.generation.scoring import Scorer
from cai_jax.models.blueprint import Model
from cai_jax.models.io.load import load_policy, policy_blueprint
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import ChatFormat, load_tokenizer

OLD = load_constitution(ROOT / "constitutions" / "harmless_10.yaml")
PAIRS = pairs_of(load_constitution(ROOT / "constitutions" / "harmless.yaml"))[:24]


@pytest.fixture(scope="module")
def labeler(model_folder, mesh):
    source = ModelSource(model_folder)
    model: Model = load_policy(source, policy_blueprint(source, np.dtype("float32")), mesh)
    chat = ChatFormat(load_tokenizer(model_folder))
    return LikelihoodContrast(Scorer(model, mesh, 32, 64), chat, 10.0)


def turned(p):
    """The principle whose opposite this is: its contrast has the other sign."""
    return replace(p, id=f"not-{p.id}", principle=p.opposite, opposite=p.principle)


def test_a_constitution_that_is_turned_around_decides_every_pair_differently(labeler):
    new = replace(OLD, feedback=tuple(turned(p) for p in OLD.feedback))
    found = compare_decisions(labeler, OLD, new, PAIRS)
    assert len(found.changed) == found.pairs == len(PAIRS)
    assert found.share.mean == 1
    assert 0.8 < found.share.low < 1
    assert found.old.mean == pytest.approx(1 - found.new.mean)
    moved = [abs(c.old - c.new) for c in found.changed]
    assert moved == sorted(moved, reverse=True)  # the strongest examples first
    told = as_text(found)
    assert "decisions: 24 of 24 pairs differ, 100% [" in told
    assert found.changed[0].pair.first in told
    assert told.count("P(chosen)") == 5


def test_an_edit_of_nothing_changes_no_decision(labeler):
    new = replace(OLD, feedback=tuple(replace(p, id=f"new-{p.id}") for p in OLD.feedback[::-1]))
    found = compare_decisions(labeler, OLD, new, PAIRS)
    assert (found.changed, found.share.mean) == ((), 0)


def test_labels_are_averaged_by_weight(labeler):
    """Principles of which one has all the weight decide as that one."""
    first, *rest = OLD.feedback
    heavy = replace(
        OLD, feedback=(replace(first, weight=1e3), *(replace(p, weight=1e-3) for p in rest))
    )
    alone = replace(OLD, feedback=(first,))
    assert not compare_decisions(labeler, heavy, alone, PAIRS).changed


def test_principles_that_label_the_opposite_way_are_found_whatever_they_are_called(labeler):
    principles = (*OLD.feedback[:4], turned(OLD.feedback[2]))
    labels = labels_of(labeler, PAIRS, principles)
    np.testing.assert_allclose(labels[:, 2] + labels[:, 4], 1, atol=1e-5)
    found = {(c.one.id, c.other.id): c.correlation for c in contrary_principles(labels, principles)}
    assert found.pop((principles[2].id, principles[4].id)) == pytest.approx(-1, abs=1e-3)
    assert all(
        principles[4].id in pair for pair in found
    )  # what is near the one is far from the other


def test_principles_that_have_nothing_in_common_are_seldom_called_contrary():
    """At most one file in twenty, of labels that are noise."""
    rng = np.random.default_rng(0)
    files = [contrary_principles(rng.uniform(size=(20, 10)), OLD.feedback) for _ in range(60)]
    assert sum(bool(found) for found in files) <= 6
    assert contrary_principles(np.full((20, 10), 0.5), OLD.feedback) == []


def test_without_pairs_there_are_no_decisions(labeler):
    with pytest.raises(ValueError, match="no pairs to compare"):
        compare_decisions(labeler, OLD, OLD, [])
