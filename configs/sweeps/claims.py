"""The claims of the paper (Bai et al. 2022), with both ways to ask for feedback."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Claims"
    s.axis = "feedback"
    s.seeds = (0, 1, 2, 3, 4)
    s.variations = [
        dict(name="multiple choice", changes={}),
        dict(name="chain of thought", changes={"feedback.method": "chain_of_thought"}),
    ]
    # Where report/summary.json holds them.
    models, preference = "evaluation.models", "evaluation.preference_model_accuracy"
    s.measures = [
        ("base harmless", f"{models}.base.red_team.oracle.harmless.mean"),
        ("base helpful", f"{models}.base.helpful.oracle.helpful.mean"),
        ("round 0 harmless", "evaluation.revision_rounds.0.oracle.harmless.mean"),
        ("round 1 harmless", "evaluation.revision_rounds.1.oracle.harmless.mean"),
        ("round 2 harmless", "evaluation.revision_rounds.2.oracle.harmless.mean"),
        ("round 3 harmless", "evaluation.revision_rounds.3.oracle.harmless.mean"),
        ("round 4 harmless", "evaluation.revision_rounds.4.oracle.harmless.mean"),
        ("SL-CAI harmless", f"{models}.sl_cai.red_team.oracle.harmless.mean"),
        ("SL-CAI helpful", f"{models}.sl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI harmless", f"{models}.rl_cai.red_team.oracle.harmless.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI explains", f"{models}.rl_cai.red_team.oracle.explains.mean"),
        ("RL-CAI evasive", f"{models}.rl_cai.red_team.oracle.evasive.mean"),
        ("RL-CAI kind", f"{models}.rl_cai.red_team.oracle.kind.mean"),
        ("labels, own pairs", "evaluation.labels.principles.accuracy"),
        ("labels, calibration error", "evaluation.labels.principles.calibration_error"),
        ("labels, held-out pairs", "feedback.audit.audit.accuracy"),
        ("labels, harmlessness pairs", "feedback.audit.development.accuracy"),
        ("preference model, harmlessness", f"{preference}.harmlessness.accuracy"),
        ("preference model, helpfulness", f"{preference}.helpfulness.accuracy"),
    ]
    s.figure = ("SL-CAI harmless", "SL-CAI helpful", "RL-CAI harmless", "RL-CAI helpful")
    s.unit = "share of replies"
    return s
