"""Kinds of feedback labels (Bai et al. 2022, section 4.1 and Fig. 4)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Kinds of feedback labels"
    s.axis = "labels"
    s.seeds = (0, 1, 2)
    s.variations = [
        dict(name="soft", changes={}),
        dict(name="hard", changes={"feedback.labels": "hard"}),
        dict(name="soft, one principle a pair", changes={"feedback.principles_per_pair": 1}),
        dict(
            name="chain of thought, clamped",
            changes={"feedback.method": "chain_of_thought"},
        ),
    ]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("audit accuracy", "labels.accuracy/audit"),
        ("label accuracy", "labels.accuracy/principles"),
        ("label calibration error", "labels.calibration_error/principles"),
        ("preference model, harmlessness", "preference_model.accuracy/harmlessness"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI explains", "oracle.explains/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
    ]
    s.figure = (
        "audit accuracy",
        "preference model, harmlessness",
        "RL-CAI explains",
        "RL-CAI helpful",
    )
    s.unit = "share right"
    return s
