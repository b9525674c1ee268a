"""Writes the prompt and pair files of the world: python -m cai_jax.microworld [FOLDER]."""

import json
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from cai_jax.data.splits import SERVES, Purpose, purpose_of
from cai_jax.microworld.corpus import group_of, prompt_of, seed_of
from cai_jax.microworld.texts import FRAMES, Act, reply
from cai_jax.microworld.world import TOPICS, Topic
from cai_jax.red_teaming.strategies.escalation import ESCALATION

# As in configs/microworld.py: no file may show a topic of another purpose.
PERCENT: dict[Purpose, int]
PERCENT = {"second_model": 10, "development": 5, "audit": 10, "evaluation": 20}
FOLDER = Path("datasets", "microworld")


def main(folder: Path) -> None:
    """One request a topic, and labelled pairs."""
    rng = np.random.default_rng(0)
    harmful = [topic for topic in TOPICS if topic.harmful]
    harmless = [topic for topic in TOPICS if not topic.harmful]
    files = {
        "red_team_prompts": [_prompt(topic) for topic in harmful],
        "helpful_prompts": [_prompt(topic) for topic in harmless],
        # What people prefer: the help that was asked for, where it does no harm...
        "helpfulness_pairs": [
            pair for topic in harmless for pair in _helpfulness_pairs(topic, rng)
        ],
        # ... and a reasoned no, where it does.
        "harmlessness_pairs": [
            pair for topic in harmful for pair in _harmlessness_pairs(topic, rng)
        ],
        "red_team_seeds": _seeds(harmful, harmless, np.random.default_rng(1)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        rng.shuffle(rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _prompt(topic: Topic) -> dict[str, str]:
    return {"id": group_of(topic), "group": group_of(topic), "prompt": prompt_of(topic)}


def _seeds(
    harmful: Sequence[Topic], harmless: Sequence[Topic], rng: np.random.Generator
) -> list[dict[str, str]]:
    """A third of harmful topics in the frames of a strategy, and openings that are harmless."""
    frames = list(FRAMES)
    about = [(topic, frames[i % len(frames)]) for i, topic in enumerate(harmful)]
    about += [(topic, ESCALATION.name) for topic in harmless[::4]]
    return [
        {
            "id": f"{group_of(topic)}-{strategy}",
            "group": group_of(topic),
            "prompt": seed_of(topic, strategy, rng),
            "strategy": strategy,
        }
        for topic, strategy in about
    ]


def _helpfulness_pairs(topic: Topic, rng: np.random.Generator) -> list[dict[str, str]]:
    """Help against each of four ways to give none."""
    worse = {
        "evades": _reply(topic, Act.EVADE, rng),
        "objects": _reply(topic, Act.OBJECT, rng),
        "strays": _reply(_neighbour(topic, rng), Act.HELP, rng),
        "stammers": _stammer(topic, rng),
    }
    about = _prompt(topic)
    return [
        about
        | {"id": f"{about['id']}-{how}", "chosen": _reply(topic, Act.HELP, rng), "rejected": text}
        for how, text in worse.items()
    ]


def _harmlessness_pairs(topic: Topic, rng: np.random.Generator) -> list[dict[str, str]]:
    """An objection against each of three replies that are worse."""
    about = _prompt(topic)
    return [
        about
        | {
            "id": f"{about['id']}-{how}",
            "chosen": _reply(topic, Act.OBJECT, rng),
            "rejected": _reply(topic, act, rng),
        }
        for how, act in (("helps", Act.HELP), ("evades", Act.EVADE), ("refuses", Act.REFUSE))
    ]


def _reply(topic: Topic, act: Act, rng: np.random.Generator) -> str:
    return reply(topic, act, bool(rng.random() < 0.3), rng)


def _neighbour(topic: Topic, rng: np.random.Generator) -> Topic:
    """Another harmless topic of the same purpose, if possible with the same verb or thing."""
    others = [
        other
        for other in TOPICS
        if not other.harmful and other != topic and _purpose(other) == _purpose(topic)
    ]
    near = [o for o in others if o.verb == topic.verb or o.thing == topic.thing] or others
    return near[rng.integers(len(near))]


@cache
def _purpose(topic: Topic) -> Purpose:
    return purpose_of(group_of(topic), PERCENT, SERVES["helpful_prompts"])


def _stammer(topic: Topic, rng: np.random.Generator) -> str:
    """Help of which two words that matter are lost, others of it in their places."""
    words = _reply(topic, Act.HELP, rng).split()
    matter = [words.index(word) for word in (topic.verb, topic.tool, topic.thing)]
    lost = rng.choice(matter, size=2, replace=False)
    others = [word for i, word in enumerate(words) if i not in lost]
    for i in lost:
        words[i] = others[rng.integers(len(others))]
    return " ".join(words)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
