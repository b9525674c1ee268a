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
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("base harmless", "oracle.harmless/base/red_team"),
        ("base helpful", "oracle.helpful/base/helpful"),
        ("round 0 harmless", "revisions.harmless/revision 0"),
        ("round 1 harmless", "revisions.harmless/revision 1"),
        ("round 2 harmless", "revisions.harmless/revision 2"),
        ("round 3 harmless", "revisions.harmless/revision 3"),
        ("round 4 harmless", "revisions.harmless/revision 4"),
        ("SL-CAI harmless", "oracle.harmless/sl_cai/red_team"),
        ("SL-CAI helpful", "oracle.helpful/sl_cai/helpful"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
        ("RL-CAI explains", "oracle.explains/rl_cai/red_team"),
        ("RL-CAI evasive", "oracle.evasive/rl_cai/red_team"),
        ("RL-CAI kind", "oracle.kind/rl_cai/red_team"),
        ("labels, own pairs", "labels.accuracy/principles"),
        ("labels, calibration error", "labels.calibration_error/principles"),
        ("labels, held-out pairs", "labels.accuracy/audit"),
        ("labels, harmlessness pairs", "labels.accuracy/development"),
        ("preference model, harmlessness", "preference_model.accuracy/harmlessness"),
        ("preference model, helpfulness", "preference_model.accuracy/helpfulness"),
    ]
    s.figure = ("SL-CAI harmless", "SL-CAI helpful", "RL-CAI harmless", "RL-CAI helpful")
    s.unit = "share of replies"
    return s
