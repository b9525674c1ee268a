"""What it gives to train on the attacks that succeed: the red team against none, microworld.

python -m cai_jax.sweep --config=configs/microworld.py:red_team --sweep=configs/sweeps/red_team.py \
    --workdir=runs/red_team
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Attacks that succeed are trained on"
    s.axis = "red team"
    s.seeds = (0, 1, 2, 3, 4)
    s.variations = [
        dict(name="none", changes={"red_team.rounds": 0}),
        dict(name="three rounds", changes={}),
    ]
    # Keys of measurements in report/summary.json.
    strategies = ("all", "direct", "role_play", "hypothetical", "escalation", "false_premise")
    s.measures = [
        *((f"success, {name}", f"attacks.success/rl_cai/oracle/{name}") for name in strategies),
        ("success by second model", "attacks.success/rl_cai/second_model/all"),
        ("SL-CAI success", "attacks.success/sl_cai/oracle/all"),
        ("harmless", "oracle.harmless/rl_cai/red_team"),
        ("helpful", "oracle.helpful/rl_cai/helpful"),
        ("evasive where help is due", "oracle.evasive/rl_cai/helpful"),
        ("engages where help is due", "evasiveness.engages/rl_cai/helpful/rule"),
    ]
    s.figure = ("success, all", "success, false_premise", "helpful")
    s.unit = "share of replies"
    return s
