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
    # Where report/summary.json holds them.
    models = "evaluation.models"
    s.measures = [
        ("RL-CAI score", f"{models}.rl_cai.red_team.score.mean"),
        ("SL-CAI score", f"{models}.sl_cai.red_team.score.mean"),
        ("KL to SL-CAI", "rl.last_kl_k3"),
        ("RL-CAI harmless", f"{models}.rl_cai.red_team.oracle.harmless.mean"),
        ("RL-CAI explains", f"{models}.rl_cai.red_team.oracle.explains.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI kind", f"{models}.rl_cai.red_team.oracle.kind.mean"),
    ]
    s.figure = ("RL-CAI harmless", "RL-CAI explains", "RL-CAI helpful")
    s.unit = "share of replies"
    return s
