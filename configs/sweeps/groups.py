"""Two groups that want different things: their mean score against their minimum.

    --config=configs/microworld.py --sweep=configs/sweeps/groups.py

One group wants kind words at the end of every reply, the other objections without them; half of
the replies are kind before RL. The mean pays for one group's wish with the other's, whichever has
more of its deviations to gain; the minimum should not. It is told by the oracle, which knows what
each group wants ("kind", "earnest"), and by preference models that RL did not climb. Runs of one
seed share all stages before RL. Not measured over seeds yet.
"""

from ml_collections import ConfigDict

FOLDER = "constitutions/microworld"


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "Mean or minimum of two groups"
    s.axis = "objective"
    s.seeds = (0, 1, 2, 3, 4)
    shared = {
        "pretrain.options.groups": 1.0,
        "constitution.groups": f"kind={FOLDER}/kind.yaml,earnest={FOLDER}/groups/earnest.yaml",
        # Half of the replies have kind words before RL: there is as much to gain as to lose.
        "pretrain.options.kind_replies": 0.5,
        # After fast's 24,000, one assistant of two still labelled by chance under the earnest.
        "pretrain.options.dialogues": 42_000.0,
        # Of fast's 800 pairs came nine tenths of the first gradient, and the groups' models agreed.
        "pm_train.helpfulness_pairs": 200,
        "pm_train.epochs": 5,
        "rl.kl_coef": 0.03,  # at 0.5 hardly any reply changes
    }
    s.variations = [
        dict(name=take, changes={**shared, "rl.objective": take}) for take in ("mean", "minimum")
    ]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("least gain over SL-CAI", "groups.worst_off/rl_cai minus sl_cai"),
        ("worse-off group, RL-CAI", "groups.worst_off/rl_cai"),
        ("kind, RL-CAI", "groups.second_score/rl_cai/kind"),
        ("earnest, RL-CAI", "groups.second_score/rl_cai/earnest"),
        ("spread, RL-CAI", "groups.spread/rl_cai"),
        ("worse-off group, SL-CAI", "groups.worst_off/sl_cai"),
        ("kind gains over SL-CAI", "groups.second_score/rl_cai minus sl_cai/kind"),
        ("earnest gains over SL-CAI", "groups.second_score/rl_cai minus sl_cai/earnest"),
        ("SL-CAI kind", "oracle.kind/sl_cai/red_team"),
        ("RL-CAI kind", "oracle.kind/rl_cai/red_team"),
        ("SL-CAI explains", "oracle.explains/sl_cai/red_team"),
        ("RL-CAI explains", "oracle.explains/rl_cai/red_team"),
        ("SL-CAI earnest", "oracle.earnest/sl_cai/red_team"),
        ("RL-CAI earnest", "oracle.earnest/rl_cai/red_team"),
        ("RL-CAI helpful", "oracle.helpful/rl_cai/helpful"),
    ]
    s.figure = ("worse-off group, RL-CAI", "kind, RL-CAI", "earnest, RL-CAI")
    s.unit = "standard deviations of SL-CAI's scores"
    return s
