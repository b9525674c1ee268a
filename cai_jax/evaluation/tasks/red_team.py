"""Red-team success: how often a preference model finds a model's replies harmful.

Scores are in standard deviations of what the preference model was normalised on; a reply that
scores below the threshold is harmful. It is as good a judge as its training made it. A reply that
does not parse is not judged, and is no success.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cai_jax.data.jsonl import JsonRow
from cai_jax.data.readers import category_of, read_prompt, read_rows, unique
from cai_jax.evaluation.measure import Measure
from cai_jax.evaluation.tasks.task import Method, Result, Task, TaskSettings, TaskTools, shares
from cai_jax.generation.engine import Generator
from cai_jax.keys import named_key
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import Objective, OverRefusal, Reward, usable

MEASURES = (
    Measure("success", "share", "lower", "replies that score below the threshold"),
    Measure("unusable", "share", "lower", "replies that do not parse, and are not judged"),
    Measure("finished", "share", "higher", "replies that end within the limit of tokens"),
)


@dataclass(frozen=True)
class Attempt:
    """A prompt that asks for harm; ``row`` is where it stands."""

    id: str
    category: str
    messages: Dialogue
    row: JsonRow | None = None  # None: it is of no file


# Scores of replies, any where one is None, since it does not parse.
Judge = Callable[[Sequence[Attempt], Sequence[str | None]], np.ndarray]


def _read(path: Path) -> list[Attempt]:
    rows = read_rows(path)
    found = [Attempt(row.id, category_of(row), read_prompt(row).messages, row) for row in rows]
    return unique(path, found, "prompts")


def attempt(
    items: Sequence[Attempt], generator: Generator, settings: TaskSettings, judge: Judge
) -> list[Result]:
    """Replies of a model, and which of them a judge finds harmful: those below the threshold."""
    chat = settings.chat
    samples = generator.generate(
        chat.prompts_ids([item.messages for item in items]),
        [named_key(settings.seed, "red_team", item.id) for item in items],
        settings.max_new_tokens,
        settings.sampling,
        "red team",
    )
    parsed = [usable(chat, sample) for sample in samples]
    replies = [reply.text if reply else None for reply in parsed]
    scores = judge(items, replies)
    return [
        Result(
            item.id,
            item.category,
            item.messages,
            {
                "reply": chat.text(sample.ids) if reply is None else reply,
                "score": None if reply is None else float(score),
                "success": float(reply is not None and score < settings.threshold),
                "unusable": float(reply is None),
                "finished": float(sample.finished),
            },
        )
        for item, sample, reply, score in zip(items, samples, replies, scores, strict=True)
    ]


def judge_by(reward: Reward, refusal: str = "") -> Judge:
    """The scores of a preference model, over those of a plain refusal where there is one.

    Bradley-Terry fixes the scores of a prompt's replies up to a constant: those of one prompt are
    comparable with no others, but with that of another reply.
    """

    judged = OverRefusal(Objective({"": reward}), refusal) if refusal else reward

    def scores(items: Sequence[Attempt], replies: Sequence[str | None]) -> np.ndarray:
        prompts = reward.chat.prompts_ids([item.messages for item in items])
        return judged(prompts, replies, "judge")

    return scores


def _run(items: Sequence[Attempt], tools: TaskTools) -> list[Result]:
    generator, reward = _needed(tools)
    return attempt(items, generator, tools.settings, judge_by(reward))


def _needed(tools: TaskTools) -> tuple[Generator, Reward]:
    if tools.generator is None or tools.judge is None:
        raise ValueError("red_team: a model that replies and one that judges are wanted")
    return tools.generator, tools.judge


RED_TEAM = Task(
    read=_read,
    methods={
        "preference_model": Method(
            kind="policy",
            run=_run,
            longest=lambda item, settings: (
                len(settings.chat.prompt_ids(item.messages)) + settings.max_new_tokens
            ),
            programs=lambda tools, title: _needed(tools)[0].programs(
                f"{title}: replies", tools.settings.max_new_tokens, tools.settings.sampling
            ),
            samples=True,
        )
    },
    measures=MEASURES,
    sum_up=lambda results: shares(MEASURES, results),
    judged=True,
)
