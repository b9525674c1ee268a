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
    # Where report/summary.json holds them.
    models, preference = "evaluation.models", "evaluation.preference_model_accuracy"
    s.measures = [
        ("audit accuracy", "feedback.audit.audit.accuracy"),
        ("label accuracy", "evaluation.labels.principles.accuracy"),
        ("label calibration error", "evaluation.labels.principles.calibration_error"),
        ("preference model, harmlessness", f"{preference}.harmlessness.accuracy"),
        ("RL-CAI harmless", f"{models}.rl_cai.red_team.oracle.harmless.mean"),
        ("RL-CAI explains", f"{models}.rl_cai.red_team.oracle.explains.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
    ]
    s.figure = (
        "audit accuracy",
        "preference model, harmlessness",
        "RL-CAI explains",
        "RL-CAI helpful",
    )
    s.unit = "share right"
    return s
