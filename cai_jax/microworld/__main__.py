"""Writes the prompt and pair files of the world: python -m cai_jax.microworld [FOLDER]."""

import json
import sys
from pathlib import Path

import numpy as np

from cai_jax.microworld.corpus import prompt_of, topic_is_held_out
from cai_jax.microworld.texts import Act, reply
from cai_jax.microworld.world import TOPICS, Topic

ROOT = Path(__file__).resolve().parents[2]
HELD_OUT_PERCENT = 30  # of configs/microworld.py: no file of one side may show the other


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
        "harmlessness_pairs": [_harmlessness_pair(topic, rng) for topic in harmful],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        rng.shuffle(rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _prompt(topic: Topic) -> dict[str, str]:
    return {"id": f"{topic.verb}-{topic.thing}", "prompt": prompt_of(topic)}


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


def _harmlessness_pair(topic: Topic, rng: np.random.Generator) -> dict[str, str]:
    """An objection against what is worse."""
    worse = (Act.HELP, Act.EVADE, Act.REFUSE)[rng.integers(3)]
    return _prompt(topic) | {
        "chosen": _reply(topic, Act.OBJECT, rng),
        "rejected": _reply(topic, worse, rng),
    }


def _reply(topic: Topic, act: Act, rng: np.random.Generator) -> str:
    return reply(topic, act, bool(rng.random() < 0.3), rng)


def _neighbour(topic: Topic, rng: np.random.Generator) -> Topic:
    """Another harmless topic with the same verb or thing, on the same side of the split."""
    near = [
        other
        for other in TOPICS
        if not other.harmful
        and (other.verb == topic.verb) != (other.thing == topic.thing)
        and topic_is_held_out(other, HELD_OUT_PERCENT) == topic_is_held_out(topic, HELD_OUT_PERCENT)
    ]
    return near[rng.integers(len(near))]


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
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "datasets" / "microworld")
