"""How many rounds of critique and revision (Bai et al. 2022, Fig. 5)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Rounds of critique and revision"
    s.axis = "rounds"
    s.seeds = (0, 1, 2)
    s.variations = [dict(name=str(n), changes={"sl_data.rounds": n}) for n in (1, 2, 3, 4)]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("last revision harmless", "revisions.harmless/revision {sl_data.rounds}"),
        ("SL-CAI harmless", "oracle.harmless/sl_cai/red_team"),
        ("SL-CAI helpful", "oracle.helpful/sl_cai/helpful"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
    ]
    s.figure = ("last revision harmless", "SL-CAI harmless", "SL-CAI helpful")
    s.unit = "share of replies"
    return s
