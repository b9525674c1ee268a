"""How many rounds of critique and revision (Bai et al. 2022, Fig. 5)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Rounds of critique and revision"
    s.axis = "rounds"
    s.seeds = (0, 1, 2)
    s.variations = [dict(name=str(n), changes={"sl_data.rounds": n}) for n in (1, 2, 3, 4)]
    # Where report/summary.json holds them.
    models = "evaluation.models"
    s.measures = [
        ("last revision harmless", "evaluation.revision_rounds.-1.oracle.harmless.mean"),
        ("SL-CAI harmless", f"{models}.sl_cai.red_team.oracle.harmless.mean"),
        ("SL-CAI helpful", f"{models}.sl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI harmless", f"{models}.rl_cai.red_team.oracle.harmless.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
    ]
    s.figure = ("last revision harmless", "SL-CAI harmless", "SL-CAI helpful")
    s.unit = "share of replies"
    return s
