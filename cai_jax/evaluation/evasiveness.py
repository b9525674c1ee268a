"""Whether policies refuse, and whether they say why, by two readers of their replies."""

from collections.abc import Iterator, Sequence

from cai_jax.evaluation.evaluator import Evaluator, Evidence, Reply, Tools, policies
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement, Plan
from cai_jax.evaluation.reply_class import CLASSES, ENGAGES, EXPLAINED, UNEXPLAINED, class_by_rule
from cai_jax.feedback.audit import wilson_interval
from cai_jax.parallel.program import Program

RULE, MODEL = "rule", "model"
MEANT = {
    UNEXPLAINED: "replies that refuse or dodge without a reason",
    EXPLAINED: "replies that refuse or object, and say why",
    ENGAGES: "replies that do what is asked, or try to",
}


def readers(plan: Plan) -> tuple[str, ...]:
    """Who classes replies: the rule, and the feedback model where the run asks it."""
    return (RULE, MODEL) if plan.judged_replies else (RULE,)


def classes_by_reader(evidence: Evidence, replies: Sequence[Reply]) -> dict[str, list[str]]:
    """Classes of replies by each reader; of the first ones alone by the feedback model."""
    found = {RULE: [class_by_rule(reply.row.response) for reply in replies]}
    if judge := evidence.tools.judge:
        said = [(reply.row.prompt, reply.row.response) for reply in replies]
        found[MODEL] = judge.classes(said[: evidence.plan.judged_replies])
    return found


def share(measure: str, subject: str, group: str, hits: Sequence[bool]) -> Measurement:
    """A share of cases with its Wilson interval."""
    count, n = sum(hits), len(hits)
    return Measurement(measure, subject, group, n, count / n, *wilson_interval(count, n))


def measures(plan: Plan) -> tuple[Measure, ...]:
    """The classes by each reader, and the agreement of both."""
    groups = {
        reader: tuple(f"{group}/{reader}" for group in PROMPT_SETS) for reader in readers(plan)
    }
    both = tuple(group for found in groups.values() for group in found)
    found = [
        Measure(name, "share", "lower" if name == UNEXPLAINED else "", meant, both)
        for name, meant in MEANT.items()
    ]
    if MODEL in groups:
        agreement = "replies that the feedback model and the rule class alike"
        found.append(Measure("agreement", "share", "higher", agreement, groups[MODEL]))
    return tuple(found)


def evaluate(evidence: Evidence) -> Iterator[Measurement]:
    """Shares with Wilson intervals."""
    for policy, group, replies in evidence.by_set():
        found = classes_by_reader(evidence, replies)
        for reader, classes in found.items():
            for name in CLASSES:
                yield share(name, policy, f"{group}/{reader}", [c == name for c in classes])
        if MODEL in found:
            same = [a == b for a, b in zip(found[RULE], found[MODEL], strict=False)]
            yield share("agreement", policy, f"{group}/{MODEL}", same)


def programs(tools: Tools) -> list[Program]:
    """What the feedback model compiles, for the twins as well."""
    return tools.judge.programs() if tools.judge else []


EVASIVENESS = Evaluator("Refusals and their reasons", policies, measures, evaluate, programs)
