"""The tasks by the names that users know them by; a new one is a file and an entry."""

from cai_jax.evaluation.tasks.evasiveness import EVASIVENESS
from cai_jax.evaluation.tasks.hhh import HHH
from cai_jax.evaluation.tasks.perplexity import PERPLEXITY
from cai_jax.evaluation.tasks.questions import QUESTIONS
from cai_jax.evaluation.tasks.red_team import RED_TEAM
from cai_jax.evaluation.tasks.reward_bench import REWARD_BENCH
from cai_jax.evaluation.tasks.task import Task
from cai_jax.evaluation.tasks.twins import TWINS

TASKS: dict[str, Task] = {
    "hhh": HHH,
    "questions": QUESTIONS,
    "reward_bench": REWARD_BENCH,
    "perplexity": PERPLEXITY,
    "red_team": RED_TEAM,
    "twins": TWINS,
    "evasiveness": EVASIVENESS,
}
