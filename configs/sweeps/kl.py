"""How much a nat of KL costs."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "KL coefficient of PPO"
    s.axis = "kl_coef"
    s.seeds = (0, 1, 2)
    s.variations = [
        dict(name=str(c), changes={"rl.kl_coef": c}) for c in (0.0, 0.05, 0.15, 0.5, 1.5)
    ]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("RL-CAI score", "preference.score/rl_cai/red_team"),
        ("SL-CAI score", "preference.score/sl_cai/red_team"),
        ("KL to SL-CAI", "rl.kl_k3/last"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI explains", "oracle.explains/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
        ("RL-CAI kind", "oracle.kind/rl_cai/red_team"),
    ]
    s.figure = ("RL-CAI harmless", "RL-CAI explains", "RL-CAI helpful")
    s.unit = "share of replies"
    return s
