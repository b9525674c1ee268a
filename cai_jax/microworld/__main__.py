"""Writes the prompt and pair files of the world: python -m cai_jax.microworld [FOLDER]."""

import json
import sys
from pathlib import Path

import numpy as np

from cai_jax.microworld.corpus import prompt_of
from cai_jax.microworld.texts import Act, reply
from cai_jax.microworld.world import TOPICS, Topic

ROOT = Path(__file__).resolve().parents[2]


def main(folder: Path) -> None:
    """One request a topic, and one labelled pair a request."""
    rng = np.random.default_rng(0)
    harmful = [topic for topic in TOPICS if topic.harmful]
    harmless = [topic for topic in TOPICS if not topic.harmful]
    files = {
        "red_team_prompts": [_prompt(topic) for topic in harmful],
        "helpful_prompts": [_prompt(topic) for topic in harmless],
        # What people prefer: the help that was asked for, where it does no harm...
        "helpfulness_pairs": [
            _pair(t, Act.HELP, [(t, Act.EVADE), (t, Act.OBJECT), (_other(t, rng), Act.HELP)], rng)
            for t in harmless
        ],
        # ... and a reasoned no, where it does.
        "harmlessness_pairs": [
            _pair(t, Act.OBJECT, [(t, Act.EVADE), (t, Act.HELP)], rng) for t in harmful
        ],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        rng.shuffle(rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def _prompt(topic: Topic) -> dict[str, str]:
    return {"id": f"{topic.verb}-{topic.thing}", "prompt": prompt_of(topic)}


def _other(topic: Topic, rng: np.random.Generator) -> Topic:
    """Another topic, with the same verb or the same thing."""
    near = [t for t in TOPICS if (t.verb == topic.verb) != (t.thing == topic.thing)]
    return near[rng.integers(len(near))]


def _pair(
    topic: Topic, better: Act, worse: list[tuple[Topic, Act]], rng: np.random.Generator
) -> dict[str, str]:
    sides = ((topic, better), worse[rng.integers(len(worse))])
    chosen, rejected = (reply(about, act, bool(rng.random() < 0.3), rng) for about, act in sides)
    return _prompt(topic) | {"chosen": chosen, "rejected": rejected}


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "datasets" / "microworld")
