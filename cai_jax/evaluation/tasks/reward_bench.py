"""Chosen and rejected replies as RewardBench has them, one against one or best of several.

A row's chosen reply must outscore all rejected ones: with one and three, a guess is right on a
quarter.
"""

from cai_jax.data.readers import read_choices
from cai_jax.evaluation.tasks.choices import BY_PREFERENCE_MODEL, MEASURES, sum_up
from cai_jax.evaluation.tasks.task import Task

REWARD_BENCH = Task(
    read=read_choices,
    methods={"preference_model": BY_PREFERENCE_MODEL},
    measures=MEASURES,
    sum_up=sum_up,
)
