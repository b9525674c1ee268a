"""Runs side by side: what they measured, and their replies to the prompts that they share."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from cai_jax.data.readers import REPLY_CLASSES
from cai_jax.data.rows import Sample
from cai_jax.evaluation.evaluator import Intervals, Oracle
from cai_jax.evaluation.measure import PROMPT_SETS, Measure, Measurement
from cai_jax.evaluation.oracle import oracle_measures, values_by_measure
from cai_jax.evaluation.reply_class import class_by_rule
from cai_jax.report.page import render
from cai_jax.report.summary import Summary
from cai_jax.report.transcripts import Transcript, embedded

INTERVALS = Intervals(bootstrap_samples=2000, seed=0)
KINDS = {"reply": {"title": "Replies of all runs", "score": "score of the last run", "gap": ""}}
WORDS = Measure("words", "words", "", "of a reply", low=0.0)
SCORE = Measure("score", "standard deviations", "higher", "by each run's own preference model")

Read = Callable[[Sequence[Sample]], list[float | None]]


@dataclass(frozen=True)
class Entry:
    """A run among others, with the samples of its evaluation."""

    name: str
    summary: Summary
    samples: Sequence[Sample]


@dataclass(frozen=True)
class Line:
    """A measure of a policy's replies in every run.

    Attributes:
      policy: whose replies.
      group: the set of prompts.
      measure: of a reply.
      means: of each run; None where it has no value.
      differences: from the run that it is compared with, over the prompts of both.
    """

    policy: str
    group: str
    measure: Measure
    means: list[Measurement | None]
    differences: list[Measurement | None]


def readings(oracle: Oracle | None) -> dict[Measure, Read]:
    """What is read off replies, in the same way in every run; scores alone are a run's own.

    Args:
      oracle: that all runs name; None: they name none, or not the same.
    """
    found: dict[Measure, Read] = {
        Measure(name, "share", "", "replies of this class, by rule"): _of_class(name)
        for name in REPLY_CLASSES
    }
    if oracle:
        found |= {measure: _by_oracle(oracle, measure.name) for measure in oracle_measures(oracle)}
    found[WORDS] = lambda rows: [float(len(row.response.split())) for row in rows]
    found[SCORE] = lambda rows: [row.score for row in rows]
    return found


def _of_class(name: str) -> Read:
    return lambda rows: [float(class_by_rule(row.response) == name) for row in rows]


def _by_oracle(oracle: Oracle, name: str) -> Read:
    def read(rows: Sequence[Sample]) -> list[float | None]:
        values = values_by_measure(oracle, [(row.prompt, row.response) for row in rows])[name]
        return [values.get(number) for number in range(len(rows))]

    return read


def base_of(entries: Sequence[Entry], number: int) -> int:
    """Which run another one is compared with: the first of its seed, or else the first of all."""
    seeds = [entry.summary.seed for entry in entries]
    return seeds.index(seeds[number]) if seeds.index(seeds[number]) != number else 0


def lines_of(entries: Sequence[Entry], oracle: Oracle | None) -> Iterator[Line]:
    """All measures of the policies that every run has."""
    policies = [
        p for p in entries[0].summary.policies if all(p in e.summary.policies for e in entries)
    ]
    reads = readings(oracle)
    for policy in policies:
        for group in PROMPT_SETS:
            rows = [_replies(entry.samples, policy, group) for entry in entries]
            for measure, read in reads.items():
                found = [_values(read, theirs) for theirs in rows]
                if any(found):
                    yield _line(policy, group, measure, found, entries)


def _replies(samples: Sequence[Sample], policy: str, group: str) -> list[Sample]:
    return [row for row in samples if row.model == policy and row.set == group]


def _values(read: Read, rows: Sequence[Sample]) -> dict[tuple, float]:
    """By what tells a reply from others in any run: the prompt, and which sample it is."""
    keys = [(row.prompt, row.id.removesuffix(f"/{row.model}")) for row in rows]
    return {key: v for key, v in zip(keys, read(rows), strict=True) if v is not None}


def _line(
    policy: str,
    group: str,
    measure: Measure,
    found: Sequence[Mapping[tuple, float]],
    entries: Sequence[Entry],
) -> Line:
    means, differences = list[Measurement | None](), list[Measurement | None]()
    for number, values in enumerate(found):
        of = measure, entries[number].name, group
        prompts = [key[0] for key in values]
        means.append(INTERVALS.mean(*of, [*values.values()], prompts) if values else None)
        base = base_of(entries, number)
        shared = [key for key in values if key in found[base]] if base != number else []
        gains = [values[key] - found[base][key] for key in shared]
        prompts = [key[0] for key in shared]
        differences.append(INTERVALS.difference(*of, gains, prompts) if shared else None)
    return Line(policy, group, measure, means, differences)


def transcripts_of(entries: Sequence[Entry]) -> Iterator[Transcript]:
    """Replies of RL-CAI, or the last policy, in all runs, to the prompts that they share."""
    found: dict[tuple, dict[int, Sample]] = {}
    for number, entry in enumerate(entries):
        policy = "rl_cai" if "rl_cai" in entry.summary.policies else [*entry.summary.policies][-1]
        for row in entry.samples:
            if row.model == policy:
                key = row.set, row.prompt, row.id.removesuffix(f"/{row.model}")
                found.setdefault(key, {})[number] = row
    for (group, prompt, id_), rows in found.items():
        if len(rows) > 1:
            yield {
                "kind": "reply",
                "id": id_,
                "tags": [group.replace("_", "-")],
                "score": round(rows[max(rows)].score, 2),
                "prompt": [[message.role, message.text] for message in prompt],
                "texts": [
                    {"of": entries[n].name, "text": row.response, "note": f"score {row.score:.2f}"}
                    for n, row in rows.items()
                ],
            }


def render_comparison(
    entries: Sequence[Entry],
    oracle: Oracle | None,
    settings: Sequence[tuple[str, Sequence[str]]],
    most_transcripts: int = 1000,
) -> str:
    """The page.

    Args:
      entries: the runs, at least two.
      oracle: that all of them name.
      settings: fields of the config that differ, with the value of each run.
      most_transcripts: prompts whose replies it shows.
    """
    names = {p: label for entry in entries for p, label in entry.summary.policies.items()}
    bases = [base_of(entries, number) for number in range(len(entries))]
    return render(
        "runs.html",
        label=lambda text: names.get(text, text),
        entries=entries,
        bases=[entries[b].name if b != n else "" for n, b in enumerate(bases)],
        lines=list(lines_of(entries, oracle)),
        own=list(_measured(entries)),
        settings=settings,
        transcripts=Markup(embedded([*transcripts_of(entries)], {}, most_transcripts, KINDS)),
    )


def _measured(entries: Sequence[Entry]) -> Iterator[tuple[str, list[str]]]:
    """What the evaluation of every run measured, by key."""
    kinds: dict[str, Measure] = {}
    for section in entries[0].summary.evaluation.sections:
        kinds |= section.declared()
    for key, kind in kinds.items():
        cells = [entry.summary.evaluation.measurements.get(key) for entry in entries]
        if all(cells):
            yield key, [cell.told(kind) for cell in cells if cell]
