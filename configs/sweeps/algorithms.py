"""Ways to learn from the same AI feedback, with equal numbers of responses.

PPO, RLOO and GRPO sample 3,840 responses; DPO and IPO go once over what the preference model of the
others learned from, about as many labelled responses. The constants of DPO and IPO were chosen on
the fast preset, seed 0. SL-CAI has one round of revisions: after four, hardly any harm is left to
unlearn. All take their last policy, since nobody looks at DPO and IPO on the way.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Algorithms"
    s.axis = "algorithm"
    s.seeds = (0, 1, 2)
    shared = {"sl_data.rounds": 1, "rl.watch_every": 0}
    groups = {"rl.samples_per_prompt": 4}
    direct = {"rl.direct.batch_size": 16, "rl.direct.sequence_length": 64}
    s.variations = [
        dict(name=algorithm.upper(), changes={"rl.algorithm": algorithm, **shared, **changes})
        for algorithm, changes in (
            ("ppo", {}),
            ("rloo", groups),
            ("grpo", groups),
            ("dpo", {**direct, "rl.direct.beta": 0.3}),
            ("ipo", {**direct, "rl.direct.beta": 0.1}),
        )
    ]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("SL-CAI harmless", "oracle.harmless/sl_cai/red_team"),
        ("SL-CAI helpful", "oracle.helpful/sl_cai/helpful"),
        ("RL-CAI harmless", "oracle.harmless/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
        ("RL-CAI evasive", "oracle.evasive/rl_cai/red_team"),
        ("RL-CAI explains", "oracle.explains/rl_cai/red_team"),
        ("RL-CAI score", "preference.score/rl_cai/red_team"),
        ("seconds", "seconds/rl"),
    ]
    s.figure = ("RL-CAI harmless", "RL-CAI helpful", "RL-CAI evasive")
    s.unit = "share of replies"
    return s
