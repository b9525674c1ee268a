"""What AI labels give, and kinds of them (Bai et al. 2022, section 4.1 and Fig. 4).

    --config=configs/microworld.py --sweep=configs/sweeps/labels.py        # by the oracle
    --config=configs/rlaif.py --sweep=configs/sweeps/labels.py:model       # any model

Shuffled labels are those of other pairs; with none, the preference model learns from the labelled
helpfulness pairs alone. What RL-CAI has beyond these two is what AI feedback contributed. The
second preference model judges all alike: it always learns from AI labels as they are. So it must
not choose the policy here, which would be AI feedback by another way: the last one is taken. In the
microworld SL-CAI has one round of revisions: after four, hardly any harm is left for RL to unlearn.
"""

from ml_collections import ConfigDict

LAST_POLICY, ONE_ROUND = {"rl.watch_every": 0}, {"sl_data.rounds": 1}


def get_config(world: str = "microworld") -> ConfigDict:
    if world not in ("microworld", "model"):
        raise ValueError(f"configs/sweeps/labels.py: no {world!r}; known: microworld, model")
    s = ConfigDict()
    s.title = "Kinds of feedback labels"
    s.axis = "labels"
    s.seeds = (0, 1, 2)
    shared = LAST_POLICY if world == "model" else LAST_POLICY | ONE_ROUND
    kinds = ("soft", "hard", "shuffled", "none")
    s.variations = [dict(name=k, changes={"pm_train.labels": k, **shared}) for k in kinds]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("audit accuracy", "labels.accuracy/audit"),
        ("preference model, harmlessness", "preference_model.accuracy/harmlessness"),
        ("preference model, helpfulness", "preference_model.accuracy/helpfulness"),
    ]
    s.unit = "share right"
    if world == "model":
        s.measures += [
            ("RL-CAI refuses harm", "text.refusal_rate/rl_cai/red_team"),
            ("RL-CAI refuses help", "text.refusal_rate/rl_cai/helpful"),
            ("KL to base", "kl.kl_to_base/rl_cai/red_team"),
            ("RL-CAI minus base, second model", "preference.second_score/rl_cai minus base/all"),
            ("RL-CAI beats base, red team", "win_rate.win_rate/rl_cai over base/red_team"),
            ("RL-CAI beats base, helpful", "win_rate.win_rate/rl_cai over base/helpful"),
        ]
        s.figure = ("preference model, harmlessness", "preference model, helpfulness")
        return s
    s.variations += [
        dict(
            name="soft, one principle a pair",
            changes={"feedback.principles_per_pair": 1, **shared},
        ),
        dict(
            name="chain of thought, clamped",
            changes={"feedback.method": "chain_of_thought", **shared},
        ),
    ]
    s.measures += [
        ("label accuracy", "labels.accuracy/principles"),
        ("label calibration error", "labels.calibration_error/principles"),
        ("SL-CAI harmless", "oracle.harmless/sl_cai/red_team"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI explains", "oracle.explains/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
    ]
    s.figure = (
        "preference model, harmlessness",
        "RL-CAI harmless",
        "RL-CAI explains",
        "RL-CAI helpful",
    )
    return s
