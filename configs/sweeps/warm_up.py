"""What the demonstrations buy: the default run with its adapter, and with few-shots instead.

    --config=configs/rlaif.py --sweep=configs/sweeps/warm_up.py

The critic labels the comparisons too, those of the second preference model among them, so scores of
the two variations are on two scales. What is compared is how revisions stand to first replies, and
policies to base, by each run's own second model; and what no model judges: labelled pairs and
refusals.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    s = ConfigDict()
    s.title = "A critic that was shown the form, or few-shots"
    s.axis = "critic"
    s.seeds = (0, 1, 2)
    s.variations = [
        dict(name="adapter", changes={}),
        dict(name="few-shots", changes={"warm_up.source": "", "sl_data.few_shots": 3}),
    ]
    # Keys of measurements in report/summary.json.
    s.measures = [
        ("audit accuracy", "labels.accuracy/audit"),
        ("preference model, harmlessness", "preference_model.accuracy/harmlessness"),
        ("first replies", "revisions.score/revision 0"),
        ("second revisions", "revisions.score/revision 2"),
        ("SL-CAI minus base, second model", "preference.second_score/sl_cai minus base/all"),
        ("RL-CAI minus base, second model", "preference.second_score/rl_cai minus base/all"),
        ("RL-CAI refuses harm", "text.refusal_rate/rl_cai/red_team"),
        ("RL-CAI refuses help", "text.refusal_rate/rl_cai/helpful"),
    ]
    s.figure = ("SL-CAI minus base, second model", "RL-CAI minus base, second model")
    s.unit = "standard deviations of SL-CAI's scores"
    return s
