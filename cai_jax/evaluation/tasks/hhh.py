"""Comparisons of replies by whether they are helpful, honest and harmless (Fig. 4 of the paper).

Files are the paper's JSONL, BIG-bench's hhh_alignment, or any that data/readers.py reads.
"""

from cai_jax.data.readers import read_choices
from cai_jax.evaluation.tasks.choices import BY_PREFERENCE_MODEL, MEASURES, by_labeler, sum_up
from cai_jax.evaluation.tasks.task import Task

HHH = Task(
    read=read_choices,
    methods={
        "preference_model": BY_PREFERENCE_MODEL,
        "multiple_choice": by_labeler("multiple_choice"),
        "contrast": by_labeler("contrast"),
        "chain_of_thought": by_labeler("chain_of_thought"),
        "five_chains": by_labeler("chain_of_thought", chains=5),
    },
    measures=MEASURES,
    sum_up=sum_up,
)
