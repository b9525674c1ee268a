"""What models wrote, as the page shows it: texts side by side, with what may be asked for.

A transcript is JSON as page.js reads it. Texts are strings; a revised one is a list of strings,
each of words that stayed, came or went, as its first character says.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cai_jax.constitution.schema import Constitution
from cai_jax.data.rows import Comparison, Revision, Sample
from cai_jax.feedback.labeler import judgement_of
from cai_jax.prompts.messages import Dialogue

STAYED, CAME, WENT = "=", "+", "-"
MOST_BYTES = 1_100_000  # of each kind: a page stays below 5 MB
KINDS = {  # what is filtered by, and what transcripts are ordered by
    "reply": {
        "title": "Replies of all models",
        "score": "score of the last model",
        "gap": "two preference models differ by",
    },
    "revision": {
        "title": "Critiques and revisions",
        "score": "% of words changed",
        "gap": "",
    },
    "label": {
        "title": "Labels of the feedback model",
        "score": "P(first is better)",
        "gap": "principles and orders differ by",
    },
}

Transcript = dict[str, Any]


def changes(before: str, after: str) -> list[str]:
    """The words of a text that was revised: those that stayed, came and went, in runs."""
    one, other = (re.findall(r"\S+\s*|\s+", text) for text in (before, after))
    old, new = ([word.strip() for word in text] for text in (one, other))
    found = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, old, new, False).get_opcodes():
        if kind == "equal":
            found.append(STAYED + "".join(other[c:d]))
        else:
            found += [WENT + "".join(one[a:b])] if b > a else []
            found += [CAME + "".join(other[c:d])] if d > c else []
    return found


def of_revisions(rows: Iterable[Revision], constitution: Constitution) -> Iterator[Transcript]:
    """Dialogues of critique and revision, those with most rounds first."""
    steps: dict[str, list[Revision]] = {}
    for row in rows:
        steps.setdefault(row.prompt_id, []).append(row)
    tags = {p.id: p.tags for p in constitution.critique_revision}
    for found in sorted(steps.values(), key=lambda rows: (-len(rows), rows[0].prompt_id)):
        first, *later = sorted(found, key=lambda row: row.round)
        yield {
            "kind": "revision",
            "id": first.prompt_id,
            "tags": _tags((row.principle_id for row in later), tags),
            "score": round(100 * _changed(first.response, later[-1].response)) if later else 0,
            "prompt": _dialogue(first.prompt),
            "texts": [
                {"of": "response" if not row.round else f"revision {row.round}"}
                | ({"principle": row.principle_id} if row.principle_id else {})
                | ({"critique": row.critique} if row.critique else {})
                | {"text": changes(last.response, row.response) if last else row.response}
                for last, row in zip([None, first, *later], [first, *later], strict=False)
            ],
        }


def _changed(before: str, after: str) -> float:
    """Share of the words that differ."""
    return 1 - difflib.SequenceMatcher(None, before.split(), after.split(), False).ratio()


def of_labels(
    rows: Iterable[Comparison], constitution: Constitution, group: str = ""
) -> Iterator[Transcript]:
    """Pairs that the feedback model labelled, with what it said under each principle and order."""
    tags = {p.id: p.tags for p in constitution.feedback}
    for row in rows:
        said = [*row.shown_first, *row.shown_second]
        yield {
            "kind": "label",
            "id": f"{group}/{row.id}" if group else row.id,
            "tags": [*filter(None, [group]), *_tags(row.principle_ids, tags)],
            "score": round(row.probability, 3),
            "gap": round(max(said) - min(said), 3),
            "prompt": _dialogue(row.prompt),
            "texts": [
                {"of": name, "text": text, "note": f"P(better) {p:.2f}"}
                for name, text, p in (
                    ("first", row.response_first, row.probability),
                    ("second", row.response_second, 1 - row.probability),
                )
            ],
            "reasons": [
                [principle, *(round(p, 3) for p in under)]
                for principle, *under in zip(
                    row.principle_ids,
                    row.shown_first,
                    row.shown_second,
                    judgement_of(row).by_principle,
                    strict=True,
                )
            ],
        } | ({"thoughts": _thoughts(row)} if row.thoughts else {})


def _thoughts(row: Comparison) -> list[list[str]]:
    """The first chain of each principle and order: both, and the text; all would fill the page."""
    names = [
        (principle, f"first shown as ({letter})")
        for principle in row.principle_ids
        for letter in "AB"
    ]
    chains = len(row.thoughts) // len(names)
    which = f", the first of {chains} chains" if chains > 1 else ""
    return [
        [principle, shown + which, text.strip()]
        for (principle, shown), text in zip(names, row.thoughts[::chains], strict=True)
    ]


def of_replies(
    rows: Iterable[Sample], policies: Mapping[str, str], second_model: bool
) -> Iterator[Transcript]:
    """What all policies replied to each held-out prompt, with their scores."""
    asked: dict[tuple[str, str], list[Sample]] = {}
    for row in rows:
        if row.model in policies:
            asked.setdefault((row.set, row.id.removesuffix(f"/{row.model}")), []).append(row)
    order = {name: number for number, name in enumerate(policies)}
    for (name, id_), found in asked.items():
        found = sorted(found, key=lambda row: order[row.model])
        gaps = [abs(row.score - row.second_score) for row in found]
        yield {
            "kind": "reply",
            "id": id_,
            "tags": [name.replace("_", "-")],
            "score": round(found[-1].score, 2),
            "prompt": _dialogue(found[0].prompt),
            "texts": [
                {
                    "of": policies[row.model],
                    "text": row.response + ("" if row.finished else " …"),
                    "note": f"score {row.score:.2f}"
                    + (f", by the other model {row.second_score:.2f}" if second_model else ""),
                }
                | ({"unjudged": row.unjudged} if row.unjudged.strip() else {})
                for row in found
            ],
        } | ({"gap": round(max(gaps), 2)} if second_model else {})


def embedded(
    transcripts: Sequence[Transcript],
    principles: Mapping[str, str],
    most: int,
    kinds: Mapping[str, Mapping[str, str]] | None = None,
) -> str:
    """JSON that stands in a page: no text of it can end its element.

    Args:
      transcripts: of all kinds.
      principles: texts by id.
      most: how many of each kind.
      kinds: titles of what is filtered by, by kind; None: those of a run.
    """
    shown, counts = list[Transcript](), dict[str, list[int]]()
    for kind in kinds or KINDS:
        here = [t for t in transcripts if t["kind"] == kind]
        kept = list(_within(here[:most], MOST_BYTES))
        if here:
            counts[kind] = [len(kept), len(here)]
        shown += kept
    named = {p for t in shown for p in _principles(t)}
    payload = {
        "kinds": {kind: about for kind, about in (kinds or KINDS).items() if kind in counts},
        "counts": counts,
        "principles": {id_: text for id_, text in principles.items() if id_ in named},
        "transcripts": shown,
    }
    return _plain(payload)


def _plain(value: Any) -> str:
    """JSON without what HTML would read."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for letter in "<>&\u2028\u2029":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return text


def _within(transcripts: Iterable[Transcript], most: int) -> Iterator[Transcript]:
    """As many as there is room for."""
    for transcript in transcripts:
        most -= len(_plain(transcript).encode("utf-8"))
        if most < 0:
            return
        yield transcript


def _principles(transcript: Transcript) -> Iterator[str]:
    yield from (text["principle"] for text in transcript["texts"] if "principle" in text)
    yield from (reason[0] for reason in transcript.get("reasons", ()))


def _dialogue(messages: Dialogue) -> list[list[str]]:
    return [[message.role, message.text] for message in messages]


def _tags(ids: Iterable[str], tags: Mapping[str, Sequence[str]]) -> list[str]:
    """Those of some principles, each once."""
    return list(dict.fromkeys(tag for id_ in ids for tag in tags.get(id_, ())))
