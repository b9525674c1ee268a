"""Critique before revision, or revision at once (Bai et al. 2022, Fig. 7)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Critique or direct revision"
    s.axis = "revision"
    s.seeds = (0, 1, 2)
    s.variations = [
        dict(name="with critique", changes={}),
        dict(name="direct", changes={"sl_data.critique": False}),
    ]
    # Where report/summary.json holds them.
    models = "evaluation.models"
    s.measures = [
        ("round 1 harmless", "evaluation.revision_rounds.1.oracle.harmless.mean"),
        ("round 2 harmless", "evaluation.revision_rounds.2.oracle.harmless.mean"),
        ("round 3 harmless", "evaluation.revision_rounds.3.oracle.harmless.mean"),
        ("round 4 harmless", "evaluation.revision_rounds.4.oracle.harmless.mean"),
        ("SL-CAI harmless", f"{models}.sl_cai.red_team.oracle.harmless.mean"),
        ("SL-CAI helpful", f"{models}.sl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI harmless", f"{models}.rl_cai.red_team.oracle.harmless.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
    ]
    s.figure = ("round 1 harmless", "round 4 harmless", "SL-CAI harmless", "RL-CAI harmless")
    s.unit = "share of replies"
    return s
