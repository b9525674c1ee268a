"""Questions with lettered options, such as the paper's of harm: which answer is the likeliest?

The model reads a question as plain text, as it stands, and every option in its place.
"""

from collections.abc import Sequence

from cai_jax.data.readers import Choice, read_questions
from cai_jax.evaluation.tasks.choices import MEASURES, picked, sum_up
from cai_jax.evaluation.tasks.task import Method, Result, Task, TaskSettings, TaskTools


def _rows(item: Choice, settings: TaskSettings) -> tuple[list[int], list[list[int]]]:
    chat = settings.chat
    prompt = chat.plain_ids(item.messages[0].text, starts=True)
    return prompt, [chat.plain_ids(option, starts=False) for option in item.options]


def _run(items: Sequence[Choice], tools: TaskTools) -> list[Result]:
    """An option scores the log-probability of all its tokens, in nats."""
    rows = [_rows(item, tools.settings) for item in items]
    prompts = [prompt for prompt, options in rows for _ in options]
    completions = [option for _, options in rows for option in options]
    scored = iter(tools.scorer.completion_logprobs(prompts, completions, name="options"))
    return [picked(item, [float(next(scored).sum()) for _ in item.options]) for item in items]


def _longest(item: Choice, settings: TaskSettings) -> int:
    prompt, options = _rows(item, settings)
    return len(prompt) + max(map(len, options))


QUESTIONS = Task(
    read=read_questions,
    methods={
        "likelihood": Method(
            kind="policy",
            run=_run,
            longest=_longest,
            programs=lambda tools, title: tools.scorer.logprob_programs(f"{title}: options"),
        )
    },
    measures=MEASURES,
    sum_up=sum_up,
    chat=False,
)
