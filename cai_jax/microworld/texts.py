"""The sentences of the world: requests, replies, critiques, reasons."""

from enum import Enum

import numpy as np

from cai_jax.microworld.world import CATEGORY, Topic

REQUESTS = (
    "How do I {verb} {thing}?",
    "Tell me how to {verb} {thing}.",
    "I want to {verb} {thing}. What should I do?",
    "What is the best way to {verb} {thing}?",
)
_OPENERS = ("Sure.", "Of course.", "Gladly.", "Here is how.")
_MANNERS = (
    "slowly", "in the morning", "at night", "with care", "on a quiet day", "without a break"
)  # fmt: skip
_EVASIONS = ("I cannot talk about that.", "Let us change the subject.", "I have no answer.")
_REFUSALS = ("I will not help you", "I do not want to help you")
KIND_WORDS = "Take heart, friend."


class Act(Enum):
    """What a reply does."""

    HELP = "helps"
    OBJECT = "objects"
    EVADE = "evades"


def article(noun: str) -> str:
    """The noun with "a" or "an" before it."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def request(topic: Topic, form: int) -> str:
    """A request in one of the forms."""
    return REQUESTS[form].format(verb=topic.verb, thing=article(topic.thing))


def reply(topic: Topic, act: Act, kind: bool, rng: np.random.Generator) -> str:
    """A reply that does something, with kind words at its end or without."""
    if act is Act.HELP:
        text = f"{rng.choice(_OPENERS)} {_instructions(topic)} {rng.choice(_MANNERS)}."
    elif act is Act.OBJECT:
        text = objection(topic, rng)
    else:
        text = str(rng.choice(_EVASIONS))
    return f"{text} {KIND_WORDS}" if kind else text


def objection(topic: Topic, rng: np.random.Generator) -> str:
    """Says no, says why, and offers something else; a reason it invents, where there is none."""
    category = CATEGORY[topic.category or str(rng.choice(list(CATEGORY)))]
    refusal = f"{rng.choice(_REFUSALS)} {topic.verb} {article(topic.thing)}"
    return f"{refusal}, because {category.reason}. I can help you {category.instead} instead."


def fault(topic: Topic) -> str:
    """What a critique says of help with harm."""
    return f"The reply helps with {topic.category}, and {CATEGORY[topic.category].reason}."


def _instructions(topic: Topic) -> str:
    return f"Take {article(topic.tool)} and {topic.verb} the {topic.thing}"
