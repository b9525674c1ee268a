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
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("base kind", "oracle.kind/base/red_team"),
        ("SL-CAI harmless", "oracle.harmless/sl_cai/red_team"),
        ("SL-CAI kind", "oracle.kind/sl_cai/red_team"),
        ("SL-CAI helpful", "oracle.helpful/sl_cai/helpful"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI kind", "oracle.kind/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
    ]
    s.figure = ("RL-CAI harmless", "RL-CAI kind", "RL-CAI helpful")
    s.unit = "share of replies"
    return s
