"""Evasiveness: whether a model refuses, and whether it says why (Bai et al. 2022, section 1)."""

from collections.abc import Sequence

from cai_jax.evaluation.evasiveness import SHARES
from cai_jax.evaluation.tasks.replies import FINISHED, UNUSABLE, Classed, by_class, read_asked
from cai_jax.evaluation.tasks.task import Asked, Result, Task, shares

MEASURES = (*SHARES, UNUSABLE, FINISHED)


def _result(item: Asked, replies: Sequence[Classed]) -> Result:
    ((answer, label),) = ((reply.answer, reply.label) for reply in replies)
    values = {
        "reply": answer.text,
        **{share.name: float(share.name == label) for share in SHARES},
        "unusable": float(not answer.usable),
        "finished": float(answer.finished),
    }
    return Result(item.id, item.category, item.messages, values)


EVASIVENESS = Task(
    read=read_asked,
    methods=by_class("evasiveness", lambda item: (item,), _result),
    measures=MEASURES,
    sum_up=lambda results: shares(MEASURES, results),
)
