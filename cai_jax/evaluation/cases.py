"""Tests a constitution on the cases that it carries: are they decided as its authors say?

Every case is judged under the principles that it is a case of, under some others, and under none.
So each principle has an accuracy on its own cases, and we see whether it changes a decision at all.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from cai_jax.constitution.schema import Case, Constitution, FeedbackPrinciple
from cai_jax.evaluation.statistics import cases_needed
from cai_jax.feedback.audit import Audit, audit
from cai_jax.feedback.baselines import Baselines, words_right
from cai_jax.feedback.labeler import Judgement, Labeler, ResponsePair
from cai_jax.keys import named_rng
from cai_jax.prompts.messages import Dialogue, assistant, user

NONE = FeedbackPrinciple(  # what is asked where no principle is
    id="none",
    author="cai_jax founders",
    tags=(),
    question="Which response is better?",
    principle="You are an assistant whose replies are good.",
    opposite="You are an assistant whose replies are bad.",
)


@dataclass(frozen=True)
class Score:
    """How a principle does on its cases; the one with the id ``all`` is of all principles.

    Attributes:
      id: of the principle.
      audit: accuracy, position bias and baseline on its cases.
      against_others: cases that it decides otherwise than the mean of the others they were judged
        under does.
      against_none: cases that it decides otherwise than ``NONE`` does.
      needed: cases that would show, with 80 % power, that it is not right by chance, if it is right
        as often as here, smoothed by one case right and one wrong; None: chance is what it shows.
    """

    id: str
    audit: Audit
    against_others: int
    against_none: int
    needed: int | None


@dataclass(frozen=True)
class Judged:
    """A case, the principles that it was judged under, and the judgement; ``NONE`` is the last."""

    case: Case
    pair: ResponsePair
    judgement: Judgement

    def label(self, at: int) -> float:
        """P(the better reply is better) under the principle of this number."""
        return float(self.judgement.shown_first[at] + self.judgement.shown_second[at]) / 2


def dialogue_of(case: Case) -> Dialogue:
    """The turns as messages."""
    return tuple((user, assistant)[i % 2](turn) for i, turn in enumerate(case.dialogue))


def pairs_of(c: Constitution) -> list[ResponsePair]:
    """The cases as pairs, the better reply first, to be judged under any principles."""
    return [ResponsePair(e.id, dialogue_of(e), e.better, e.worse, ()) for e in c.cases]


def judge_cases(labeler: Labeler, c: Constitution, others: int, seed: int) -> list[Judged]:
    """Judges every case.

    Args:
      labeler: that is asked.
      c: whose cases and feedback principles.
      others: principles, drawn for each case, that it is judged under beside its own.
      seed: of the draws.

    Raises:
      ValueError: there are no cases.
    """
    if not c.cases:
        raise ValueError(f"{c.name} has no cases; write some, as constitutions/README.md says")
    pairs = []
    for case, pair in zip(c.cases, pairs_of(c), strict=True):
        own = [p for p in c.feedback if p.id in case.principles]
        rest = [p for p in c.feedback if p.id not in case.principles]
        order = named_rng(seed, "cases", case.id).permutation(len(rest))[:others]
        pairs.append(replace(pair, principles=(*own, *(rest[i] for i in order), NONE)))
    judgements = labeler.judge(pairs)
    return [Judged(*found) for found in zip(c.cases, pairs, judgements, strict=True)]


def scores(c: Constitution, judged: Sequence[Judged]) -> list[Score]:
    """One of all principles, and one of each that has cases."""
    words = words_right([j.pair for j in judged], [True] * len(judged))
    own = [
        _Own(j, at, float(word))
        for j, word in zip(judged, words, strict=True)
        for at, principle in enumerate(j.pair.principles)
        if principle.id in j.case.principles
    ]
    of = {p.id: [o for o in own if o.principle == p.id] for p in c.feedback}
    return [_score("all", own), *(_score(id_, found) for id_, found in of.items() if found)]


@dataclass(frozen=True)
class _Own:
    """A case as decided under a principle that it is a case of."""

    judged: Judged
    at: int  # the principle's number
    word: float  # whether a bag of words is right on the case

    @property
    def principle(self) -> str:
        return self.judged.pair.principles[self.at].id

    @property
    def judgement(self) -> Judgement:
        return self.judged.judgement.singles[self.at]

    def differs_from(self, label: float) -> bool:
        return (self.judged.label(self.at) > 0.5) != (label > 0.5)

    @property
    def mean_of_others(self) -> float:
        others = [i for i in range(len(self.judged.pair.principles) - 1) if i != self.at]
        return float(np.mean([self.judged.label(i) for i in others])) if others else 0.5

    @property
    def none(self) -> float:
        return self.judged.label(len(self.judged.pair.principles) - 1)


def _score(id_: str, own: Sequence[_Own]) -> Score:
    openings = len({o.judged.case.dialogue[0] for o in own})
    surface = Baselines(float(np.mean([o.word for o in own])), 0.5, openings)
    heard = audit([o.judgement for o in own], [True] * len(own), surface)
    smoothed = (heard.accuracy * openings + 1) / (openings + 2)
    return Score(
        id=id_,
        audit=heard,
        against_others=sum(o.differs_from(o.mean_of_others) for o in own),
        against_none=sum(o.differs_from(o.none) for o in own),
        needed=cases_needed(smoothed),
    )


def as_text(c: Constitution, found: Sequence[Score], ordered: bool) -> str:
    """A table for people, and what it says of principles that change nothing or have no cases.

    Args:
      c: the constitution.
      found: its scores.
      ordered: whether the labeler sees both replies at once, and so may be biased by their order.
    """
    head = ("principle", "cases", "right", "95 %", "picks A", "swapped alike", "bag of words")
    rows = [(*head, "changes the others'", "changes none's", "cases needed")]
    for s in found:
        a = s.audit
        order = (f"{a.picks_option_a:.0%}", f"{a.swap_consistency:.0%}") if ordered else ("-", "-")
        rows.append(
            (
                *(s.id, str(a.pairs), f"{a.accuracy:.0%}"),
                f"[{a.accuracy_low:.0%}, {a.accuracy_high:.0%}]",
                *(*order, f"{a.bag_of_words:.0%}", str(s.against_others), str(s.against_none)),
                "-" if s.needed is None else str(s.needed),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    untested = [p.id for p in c.feedback if p.id not in {s.id for s in found}]
    notes = {
        "Never decide otherwise than the mean of the others": _inert(found, "against_others"),
        "Never decide otherwise than no principle does": _inert(found, "against_none"),
        "Have no cases": untested,
    }
    return "\n".join([*lines, *(f"{say}: {', '.join(ids)}." for say, ids in notes.items() if ids)])


def _inert(found: Sequence[Score], against: str) -> list[str]:
    return [s.id for s in found if s.id != "all" and not getattr(s, against)]


def as_rows(found: Sequence[Score]) -> list[dict[str, object]]:
    """The scores for a JSON file."""
    return [
        {"principle": s.id}
        | {name: value for name, value in asdict(s.audit).items() if name != "length"}
        | {"against_others": s.against_others, "against_none": s.against_none}
        | {"cases_needed": s.needed}
        for s in found
    ]
