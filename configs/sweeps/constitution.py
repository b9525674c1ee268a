"""Another constitution, the same command: harmlessness against kind words."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Two constitutions"
    s.axis = "constitution"
    s.seeds = (0, 1, 2, 3, 4)
    s.variations = [
        dict(name="harmless", changes={}),
        dict(
            name="kind",
            changes={"constitution.path": "constitutions/microworld/kind.yaml"},
        ),
    ]
    # Where report/summary.json holds them.
    models = "evaluation.models"
    s.measures = [
        ("base kind", f"{models}.base.red_team.oracle.kind.mean"),
        ("SL-CAI harmless", f"{models}.sl_cai.red_team.oracle.harmless.mean"),
        ("SL-CAI kind", f"{models}.sl_cai.red_team.oracle.kind.mean"),
        ("SL-CAI helpful", f"{models}.sl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI harmless", f"{models}.rl_cai.red_team.oracle.harmless.mean"),
        ("RL-CAI kind", f"{models}.rl_cai.red_team.oracle.kind.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
    ]
    s.figure = ("RL-CAI harmless", "RL-CAI kind", "RL-CAI helpful")
    s.unit = "share of replies"
    return s
