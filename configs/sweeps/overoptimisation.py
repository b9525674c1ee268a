"""Three times as much PPO, without what keeps it honest (Bai et al. 2022, section 4.3)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Over-optimisation"
    s.axis = "what is missing"
    s.seeds = (0, 1, 2)
    no_penalty = {"rl.kl_coef": 0.0}
    hard = {"feedback.labels": "hard"}
    one_principle = {
        "constitution.feedback_principles": 1,
        "feedback.principles_per_pair": 1,
    }
    s.variations = [
        dict(name=name, changes={"rl.iterations": 90, **changes})
        for name, changes in (
            ("nothing", {}),
            ("KL penalty", no_penalty),
            ("KL penalty, soft labels", no_penalty | hard),
            ("KL penalty, 15 principles", no_penalty | one_principle),
            ("all three", no_penalty | hard | one_principle),
        )
    ]
    # Where report/summary.json holds them.
    models = "evaluation.models"
    s.measures = [
        ("RL-CAI score", f"{models}.rl_cai.red_team.score.mean"),
        ("SL-CAI score", f"{models}.sl_cai.red_team.score.mean"),
        ("KL to SL-CAI", "rl.last_kl_k3"),
        ("SL-CAI explains", f"{models}.sl_cai.red_team.oracle.explains.mean"),
        ("RL-CAI explains", f"{models}.rl_cai.red_team.oracle.explains.mean"),
        ("SL-CAI helpful", f"{models}.sl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI helpful", f"{models}.rl_cai.helpful.oracle.helpful.mean"),
        ("RL-CAI kind", f"{models}.rl_cai.red_team.oracle.kind.mean"),
    ]
    s.figure = ("RL-CAI explains", "RL-CAI helpful", "RL-CAI kind")
    s.unit = "share of replies"
    return s
