"""How many principles, for revisions and for feedback (Bai et al. 2022, Fig. 6)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Number of principles"
    s.axis = "principles"
    s.seeds = (0, 1, 2)
    s.variations = [
        dict(
            name=str(n),
            changes={
                "constitution.critique_principles": n,
                "constitution.feedback_principles": n,
                "feedback.principles_per_pair": min(n, 4),
            },
        )
        for n in (1, 2, 4, 8, 16)
    ]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("first revision harmless", "revisions.harmless/revision 1"),
        ("last revision harmless", "revisions.harmless/revision {sl_data.rounds}"),
        ("SL-CAI harmless", "oracle.harmless/sl_cai/red_team"),
        ("SL-CAI helpful", "oracle.helpful/sl_cai/helpful"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
        ("SL-CAI distinct pairs of words", "text.distinct_2/sl_cai/red_team"),
    ]
    s.figure = (
        "first revision harmless",
        "last revision harmless",
        "SL-CAI harmless",
        "RL-CAI harmless",
    )
    s.unit = "share of replies"
    return s
