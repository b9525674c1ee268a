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
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("round 1 harmless", "revisions.harmless/revision 1"),
        ("round 2 harmless", "revisions.harmless/revision 2"),
        ("round 3 harmless", "revisions.harmless/revision 3"),
        ("round 4 harmless", "revisions.harmless/revision 4"),
        ("SL-CAI harmless", "oracle.harmless/sl_cai/red_team"),
        ("SL-CAI helpful", "oracle.helpful/sl_cai/helpful"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
    ]
    s.figure = ("round 1 harmless", "round 4 harmless", "SL-CAI harmless", "RL-CAI harmless")
    s.unit = "share of replies"
    return s
