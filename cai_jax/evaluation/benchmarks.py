"""Benchmarks of published formats in a run, of every policy and of the preference model.

The tasks are those of evaluation/tasks/ that the config names a file for. Tasks that sample replies
take them from the policy; the judges are the run's own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cai_jax.data.readers import ALL
from cai_jax.evaluation.evaluator import Evaluator, Evidence, policies
from cai_jax.evaluation.measure import Measure, Measurement, Plan
from cai_jax.evaluation.tasks.registry import TASKS
from cai_jax.evaluation.tasks.task import Method, TaskTools
from cai_jax.parallel.program import Program

Kind = Literal["policy", "preference"]  # of models that are tried
KINDS: tuple[Kind, ...] = ("policy", "preference")
JUDGE = "preference model"  # as a subject


@dataclass(frozen=True)
class Trial:
    """A method of a task, and the items that models are tried on."""

    task: str
    name: str  # of the method
    method: Method
    items: Sequence[Any]

    def named(self, measure: str) -> str:
        """TASK_METHOD_MEASURE."""
        return f"{self.task}_{self.name}_{measure}"


def judge_of(group: str) -> str:
    """The preference model of a group, as a subject."""
    return f"{JUDGE} {group}".rstrip()


def trials(items: Mapping[str, Sequence[Any]], methods: str) -> list[Trial]:
    """What models are tried by.

    Args:
      items: by task.
      methods: names with commas between; a task that has none of them is tried by those that
        ``Task.chosen`` takes.

    Raises:
      ValueError: no task has a method of a name.
    """
    named = [name.strip() for name in methods.split(",") if name.strip()]
    known = list(dict.fromkeys(name for task in TASKS.values() for name in task.methods))
    if odd := [name for name in named if name not in known]:
        raise ValueError(f"no task has a method {odd[0]!r}; known: {', '.join(known)}")
    return [
        Trial(task, name, method, found)
        for task, found in items.items()
        for kind in KINDS
        for name, method in TASKS[task].chosen(kind, named).items()
    ]


def measures(tried: Sequence[Trial], kind: Kind) -> tuple[Measure, ...]:
    """What is measured of one kind of model, of all items and by category."""
    return tuple(
        replace(
            measure,
            name=trial.named(measure.name),
            groups=(ALL, *sorted({item.category for item in trial.items} - {""})),
        )
        for trial in tried
        if trial.method.kind == kind
        for measure in TASKS[trial.task].measures
    )


def measured(
    tried: Sequence[Trial], kind: Kind, subject: str, tools: TaskTools
) -> list[Measurement]:
    """The measurements of one model."""
    return [
        replace(m, measure=trial.named(m.measure), subject=subject)
        for trial in tried
        if trial.method.kind == kind
        for m in TASKS[trial.task].measure(trial.name, trial.method.run(trial.items, tools))
    ]


def programs(tried: Sequence[Trial], kind: Kind, whose: str, tools: TaskTools) -> list[Program]:
    """What ``measured`` compiles, known from an abstract model; what judges harm apart."""
    return [
        program
        for trial in tried
        if trial.method.kind == kind
        for program in trial.method.programs(
            tools, f"{trial.task}, {trial.name.replace('_', ' ')}{whose}"
        )
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
