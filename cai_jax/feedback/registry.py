"""The labelers by the names that a config knows them by; a new one is a file and an entry."""

from cai_jax.feedback.chain_of_thought import ChainOfThought
from cai_jax.feedback.contrast import LikelihoodContrast
from cai_jax.feedback.labeler import Labeler
from cai_jax.feedback.multiple_choice import MultipleChoice

LABELERS: dict[str, type[Labeler]] = {
    "contrast": LikelihoodContrast,
    "multiple_choice": MultipleChoice,
    "chain_of_thought": ChainOfThought,
}
