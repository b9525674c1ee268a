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
    # Where report/summary.json holds them.
    models = "evaluation.models"
    s.measures = [
        ("first revision harmless", "evaluation.revision_rounds.1.oracle.harmless.mean"),
        ("last revision harmless", "evaluation.revision_rounds.-1.oracle.harmless.mean"),
        ("SL-CAI harmless", f"{models}.sl_cai.red_team.oracle.harmless.mean"),
        ("SL-CAI helpful", f"{models}.sl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI harmless", f"{models}.rl_cai.red_team.oracle.harmless.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
        ("SL-CAI distinct pairs of words", f"{models}.sl_cai.red_team.distinct_2"),
    ]
    s.figure = (
        "first revision harmless",
        "last revision harmless",
        "SL-CAI harmless",
        "RL-CAI harmless",
    )
    s.unit = "share of replies"
    return s
