"""Benchmarks of published formats in a run, of every policy and of the preference model.

The tasks are those of evaluation/tasks/ that the config names a file for, by the methods that
sample nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cai_jax.data.readers import ALL
from cai_jax.evaluation.evaluator import Evaluator, Evidence, policies
from cai_jax.evaluation.measure import Measure, Measurement, Plan
from cai_jax.evaluation.tasks.registry import TASKS
from cai_jax.evaluation.tasks.task import Method, TaskTools
from cai_jax.parallel.program import Program

Items = Mapping[str, Sequence[Any]]  # by task
KINDS = ("policy", "preference")  # of models that are tried
JUDGE = "preference model"  # as a subject


def judge_of(group: str) -> str:
    """The preference model of a group, as a subject."""
    return f"{JUDGE} {group}".rstrip()


def methods(task: str, kind: str) -> dict[str, Method]:
    """The methods of a task that try one kind of model, and sample nothing."""
    found = TASKS[task].methods.items()
    return {name: method for name, method in found if method.kind == kind and not method.samples}


def measures(items: Items, kind: str) -> tuple[Measure, ...]:
    """What is measured of one kind of model: TASK_METHOD_MEASURE, of all and by category."""
    return tuple(
        replace(
            measure,
            name=f"{task}_{method}_{measure.name}",
            groups=(ALL, *sorted({item.category for item in found} - {""})),
        )
        for task, found in items.items()
        for method in methods(task, kind)
        for measure in TASKS[task].measures
    )


def measured(items: Items, kind: str, subject: str, tools: TaskTools) -> list[Measurement]:
    """The measurements of one model."""
    return [
        replace(m, measure=f"{task}_{name}_{m.measure}", subject=subject)
        for task, found in items.items()
        for name, method in methods(task, kind).items()
        for m in TASKS[task].measure(name, method.run(found, tools))
    ]


def programs(items: Items, kind: str, whose: str, tools: TaskTools) -> list[Program]:
    """What ``measured`` compiles, known from an abstract model."""
    return [
        program
        for task in items
        for name, method in methods(task, kind).items()
        for program in method.programs(tools, f"{task}, {name.replace('_', ' ')}{whose}")
    ]


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """What the policies reached."""
    yield from (m for m in evidence.benchmarks if not m.subject.startswith(JUDGE))


def evaluate_judge(evidence: Evidence) -> Iterator[Measurement]:
    """What the preference models reached."""
    yield from (m for m in evidence.benchmarks if m.subject.startswith(JUDGE))


def judge(plan: Plan) -> tuple[str, ...]:
    """The preference model of every group."""
    return tuple(map(judge_of, plan.groups))


CASES = "items of a task's file; those of one prompt count as one unit"
BENCHMARKS = Evaluator("Benchmarks", policies, lambda plan: plan.benchmarks, evaluate, cases=CASES)
JUDGE_BENCHMARKS = Evaluator(
    "Benchmarks of the preference model",
    judge,
    lambda plan: plan.judge_benchmarks,
    evaluate_judge,
    cases=CASES,
)
