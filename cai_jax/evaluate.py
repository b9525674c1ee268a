"""Tries a model on a benchmark of a published format.

python -m cai_jax.evaluate --model=SOURCE --task=TASK --data=FILE --out=JSON

| task | data |
| --- | --- |
| hhh | comparisons: the paper's JSONL, BIG-bench's JSON or folder, any labelled pairs |
| questions | the paper's questions with options, such as those of harm |
| reward_bench | chosen and rejected replies, one or several of each |
| perplexity | plain text: rows with ``text``, or a .txt file |
| red_team | prompts; --judge judges the replies, harmful where they score below --threshold |
| twins | a prompt to answer and its twin to refuse: rows with ``safe`` and ``unsafe`` |
| evasiveness | prompts; does the model refuse, and does it say why? |

A preference model scores options. A language model is asked as the feedback model is, by
--methods: multiple_choice and contrast, and where they are named, chain_of_thought and five_chains.
Replies to twins and to prompts of evasiveness are classed by a rule on words, and with
--methods=rule,model by a language model too: by --judge, or the model itself where none is named.
The answer has ``measurements`` of all items and by category, with 95 % Wilson intervals of shares,
and ``items`` with what every method gave each. Options that tie share an item.
"""

import json
import logging
from dataclasses import asdict
from typing import Any

from absl import flags

from cai_jax.commands import files, models
from cai_jax.commands.front import start
from cai_jax.commands.model_flag import MODEL, named_source
from cai_jax.commands.source import open_source
from cai_jax.config import naming
from cai_jax.constitution.schema import load_constitution
from cai_jax.evaluation.measure import Measurement
from cai_jax.evaluation.reply_class import ReplyJudge
from cai_jax.evaluation.tasks.red_team import judge_by
from cai_jax.evaluation.tasks.registry import TASKS
from cai_jax.evaluation.tasks.task import (
    Method,
    Result,
    Task,
    TaskSettings,
    TaskTools,
    check_lengths,
)
from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.models.io.sources import ModelSource
from cai_jax.prompts.chat import open_chat
from cai_jax.storage.files import resolved

TASK = flags.DEFINE_enum("task", None, list(TASKS), "what is tried", required=True)
DATA = flags.DEFINE_string("data", None, "file of the items", required=True)
OUT = flags.DEFINE_string("out", None, "JSON file to write", required=True)
METHODS = flags.DEFINE_list(
    "methods",
    [],
    "of the task; empty: those of this kind of model that sample nothing, or the first",
)
JUDGE = flags.DEFINE_string(
    "judge", "", "source of the model that judges replies: red_team wants a preference model"
)
THRESHOLD = flags.DEFINE_float(
    "threshold",
    None,
    "replies that score below it are harmful; in standard deviations of SL-CAI's samples where our "
    "preference model judges, raw logits where a Hugging Face classifier does",
)
CONSTITUTION = flags.DEFINE_string("constitution", "", "file with few-shots of questions")
FEW_SHOTS = flags.DEFINE_integer("few_shots", 0, "of them, before each question", lower_bound=0)
TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "0: the likeliest token", lower_bound=0.0)
MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 128, "of what is sampled", lower_bound=1)
WINDOW = flags.DEFINE_integer(
    "window", None, "tokens of plain text read at once; unset: as many as it can", lower_bound=2
)
SEED = flags.DEFINE_integer("seed", 0, "of the samples", lower_bound=0)
log = logging.getLogger("cai_jax")


def main() -> None:
    """Reads, refuses what cannot be used, and only then opens models."""
    read = [DATA.value, MODEL.value, JUDGE.value, CONSTITUTION.value]
    files.check_out(OUT.value, inputs=read)
    task = TASKS[TASK.value]
    items = task.read(resolved(DATA.value))
    source = named_source()
    methods = chosen_methods(task, source)
    judge = judge_source(methods)
    settings = settings_of(task, source, judge)
    for method in methods.values():
        check_lengths(items, method, settings)
    tools = open_tools(source, judge, settings)
    results = {name: method.run(items, tools) for name, method in methods.items()}
    measurements = [m for name in methods for m in task.measure(name, results[name])]
    kinds = {measure.name: measure for measure in task.measures}
    for m in measurements:
        log.info("%s, %s, %s: %s", m.subject, m.measure, m.group, m.told(kinds[m.measure]))
    write(measurements, results)


def chosen_methods(task: Task, source: ModelSource) -> dict[str, Method]:
    """The methods that --methods names, or that suit the model.

    Raises:
      ValueError: one is unknown, or tries models of another kind.
    """
    known = ", ".join(task.methods)
    for name in METHODS.value:
        if name not in task.methods:
            raise ValueError(f"--methods: {TASK.value} has no method {name!r}; known: {known}")
        if task.methods[name].kind != source.kind:
            raise ValueError(
                f"--methods: {name} tries a {task.methods[name].kind} model, but --model is a "
                f"{source.kind} model; name another"
            )
    found = task.chosen(source.kind, METHODS.value)
    if not found:
        raise ValueError(
            f"--task: {TASK.value} is not for a {source.kind} model, as --model is; name another"
        )
    return found


def judge_source(methods: dict[str, Method]) -> ModelSource | None:
    """The source that --judge names; None: no other model judges.

    Raises:
      ValueError: a method needs one, and none is named, or it is of another kind.
    """
    kind = next((method.judge for method in methods.values() if method.judge), "")
    if kind == "preference" and not JUDGE.value:
        raise ValueError(f"--judge: {TASK.value} needs a preference model; name its source")
    if kind == "preference" and THRESHOLD.value is None:
        raise ValueError(
            f"--threshold: {TASK.value} needs the score below which a reply is harmful; name it "
            "(standard deviations of SL-CAI's samples, or logits of a Hugging Face classifier)"
        )
    if not (kind and JUDGE.value):
        return None
    with naming("--judge"):
        source = open_source(JUDGE.value)
        if source.kind != kind:
            raise ValueError(f"{JUDGE.value} is a {source.kind} model; name a {kind} model")
        return source


def settings_of(task: Task, source: ModelSource, judge: ModelSource | None) -> TaskSettings:
    """How the model is asked."""
    constitution = load_constitution(resolved(CONSTITUTION.value)) if CONSTITUTION.value else None
    if FEW_SHOTS.value and constitution is None:
        raise ValueError("--few_shots: of which file? name it in --constitution")
    chat = open_chat(source, needs_template=task.chat)
    judge_chat = open_chat(judge) if judge else chat
    longest = min(each.config.max_length for each in (source, judge) if each)
    return TaskSettings(
        open_chat=lambda: chat,
        max_tokens=longest,
        window=min(WINDOW.value or longest, longest),
        constitution=constitution,
        few_shots=FEW_SHOTS.value,
        sampling=Sampling(TEMPERATURE.value),
        max_new_tokens=MAX_NEW_TOKENS.value,
        threshold=THRESHOLD.value or 0.0,  # asked for where it is used
        seed=SEED.value,
        open_judge_chat=lambda: judge_chat,
    )


def open_tools(source: ModelSource, judge: ModelSource | None, settings: TaskSettings) -> TaskTools:
    """The models."""
    mesh, batch = models.open_mesh(), models.BATCH_SIZE.value
    if source.kind == "preference":
        return TaskTools(settings, models.open_judge(source, mesh))
    model = models.open_policy(source, mesh)
    scorer = Scorer(model, mesh, batch)
    generator = Generator(model, mesh, settings.chat.stop_ids, batch)
    if judge and judge.kind == "preference":
        harm = judge_by(models.open_reward(judge, mesh))
        return TaskTools(settings, scorer, generator, harm)
    reader = Scorer(models.open_policy(judge, mesh), mesh, batch) if judge else scorer
    reply_judge = ReplyJudge(reader, lambda: settings.judge_chat)
    return TaskTools(settings, scorer, generator, reply_judge=reply_judge)


def write(measurements: list[Measurement], results: dict[str, list[Result]]) -> None:
    """Writes --out, whole or not at all."""
    items = [
        {"id": found[0].id, "category": found[0].category}
        | {name: result.values for name, result in zip(results, found, strict=True)}
        for found in zip(*results.values(), strict=True)
    ]
    answer: dict[str, Any] = {
        "task": TASK.value,
        "model": MODEL.value,
        "data": DATA.value,
        "measurements": [asdict(m) for m in measurements],
        "items": items,
    }
    text = json.dumps(answer, indent=2, ensure_ascii=False) + "\n"
    files.write_whole(OUT.value, text)


if __name__ == "__main__":
    start(main)
