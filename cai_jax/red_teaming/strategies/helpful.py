"""No attack: requests for help, which are written and filtered in the same way.

Its seeds are plain prompts, such as those of datasets/helpful_prompts.jsonl.
"""

from cai_jax.red_teaming.strategies.direct import DIRECT
from cai_jax.red_teaming.strategies.strategy import Strategy

HELPFUL = Strategy(
    "helpful", "Write different questions of people who need help.", seeds=DIRECT.name
)
