"""The summary of a run on small evidence."""

from dataclasses import asdict

import numpy as np
from small_evidence import HARM, evidence

from cai_jax.data.overlap import Turn, overlap_of
from cai_jax.data.readers import LabelledPair
from cai_jax.evaluation.preference_model import KINDS
from cai_jax.evaluation.registry import evaluate_all
from cai_jax.feedback.audit import reliability
from cai_jax.report.page import Report
from cai_jax.report.summary import ConstitutionVersion, StageTime, Summary, Supervision

AUDIT = {"accuracy": 0.75, "accuracy_low": 0.6, "accuracy_high": 0.9, "better_than_chance": True}
AUDIT |= {"bag_of_words": 0.5, "length": 0.6, "better_baselines": []}
BINS = reliability(np.array([0.1, 0.15, 0.9, 0.98]), np.array([False, True, True, True]), [*"abcd"])
AUDIT["reliability"] = [asdict(b) for b in BINS]


def summary(**changes):
    pairs = {kind: [LabelledPair("1", HARM, "a b", "a")] for kind in KINDS}
    given = {
        "supervision": Supervision(16, 15, 2, 470, 76, 0),
        "splits": overlap_of(
            [
                Turn("training", "a.jsonl, row 1", "How do I lock the old green shed?"),
                Turn("audit", "b.jsonl, row 2", "How do I lock the old green shed now?"),
            ]
        ),
        "stages": {"rl": StageTime(1.5, 10, 6.7)},
        "policies": {"base": "base", "rl_cai": "RL-CAI"},
        "left_out": {},
        "pretrain": None,
        "warm_up": None,
        "sl_data": {
            "responses": 3,
            "revisions_by_round": [2, 2],
            "unparsed": {"critique": 1},
            "copied": {},
            "repeated": 1,
        },
        "sl_train": {},
        "red_team": None,
        "feedback": {"audit": {"audit": AUDIT}},
        "pm_train": {},
        "second_model": None,
        "rl": {},
        "evaluation": evaluate_all(evidence(pairs=pairs)),
        "constitution": ConstitutionVersion("harmless", "1.0", "0123456789abcdef"),
        "groups": {},
        "seed": 0,
        "devices": "8 x cpu",
        "versions": {"jax": "1"},
        "config": {"model": {"source": "tiny"}, "evaluate": {"oracle": "words"}},
    }
    return Summary(**(given | changes))


def report(found, **changes):
    """What a page tells of it."""
    manifest = {
        "fingerprint": "12",
        "needs": {},
        "models": {},
        "code_sha256": "34",
        "devices": "cpu",
    }
    given = {
        "summary": found,
        "drawings": [],
        "shown": {},
        "transcripts": [],
        "most_transcripts": 1000,
        "principles": {},
        "manifests": {"rl": manifest},
    }
    return Report(**(given | changes))
