"""Three times as much PPO, without what keeps it honest (Bai et al. 2022, section 4.3)."""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Over-optimisation"
    s.axis = "what is missing"
    s.seeds = (0, 1, 2)
    no_penalty = {"rl.kl_coef": 0.0}
    hard = {"pm_train.labels": "hard"}
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
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("RL-CAI score", "preference.score/rl_cai/red_team"),
        ("SL-CAI score", "preference.score/sl_cai/red_team"),
        ("KL to SL-CAI", "rl.kl_k3/last"),
        ("SL-CAI explains", "oracle.explains/sl_cai/red_team"),
        ("RL-CAI explains", "oracle.explains/rl_cai/red_team"),
        ("SL-CAI helpful", "oracle.helpful/sl_cai/helpful"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
        ("RL-CAI kind", "oracle.kind/rl_cai/red_team"),
    ]
    s.figure = ("RL-CAI explains", "RL-CAI helpful", "RL-CAI kind")
    s.unit = "share of replies"
    return s
