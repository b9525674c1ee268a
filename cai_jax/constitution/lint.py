"""Finds what is likely to go wrong under a constitution, before any model reads it.

Rules are plain: on words, lengths and counts, each a function of this file. Where one is wrong for
a text, a comment says so and why, and lint is silent there:

    # lint-allow presupposed-fault: the tiny assistant knows these sentences only.

It holds for the field below it or, if it is not indented, for the whole file.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cai_jax.constitution.pairs import Entry, Pair, contradictions, near_duplicates
from cai_jax.constitution.schema import (
    Case,
    ConstitutionError,
    CritiqueExample,
    CritiquePrinciple,
    FeedbackPrinciple,
    Located,
    authors_of,
    locate_constitution,
)
from cai_jax.constitution.wording import compare, wording
from cai_jax.letters import seen, word_count
from cai_jax.reading import read_text

CONTRAST = ("principle", "opposite")
SHORTEST = 3  # words
LONGEST = {  # words; a model of few parameters loses the thread of more
    "critique_request": 80,
    "revision_request": 80,
    "question": 40,
    "principle": 40,
    "opposite": 40,
    "prompt": 150,
    "response": 150,
    "critique": 150,
    "revision": 150,
    "option_a": 150,
    "option_b": 150,
    "reasoning": 150,
    "better": 150,
    "worse": 150,
}
RARE = 0.1  # of the draws that even weights would give
UNLIKE = 0.15  # of their words, what a principle and its opposite share at least


@dataclass(frozen=True)
class Finding:
    """Something to change: ``FILE:LINE: RULE: what is wrong; the remedy``."""

    path: Path
    line: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.rule}: {self.message}"


@dataclass(frozen=True)
class Linted:
    """What lint says of a file.

    Attributes:
      findings: by line.
      principles: how many there are.
      allowed: how many findings comments allow.
    """

    findings: tuple[Finding, ...]
    principles: int = 0
    allowed: int = 0


Found = Iterator[tuple[int, str]]  # lines and messages


def lint(path: Path, by_labels: Callable[[Located], Found] | None = None) -> Linted:
    """Applies all rules to a file; one that is no constitution is one finding.

    Args:
      path: of the file.
      by_labels: what a model finds beside them, under the rule ``BY_LABELS``.
    """
    try:
        located = locate_constitution(path)
    except ConstitutionError as error:
        return Linted((Finding(path, error.line or 1, "schema", error.problem),))
    rules = RULES | ({BY_LABELS: by_labels} if by_labels else {})
    found = [
        Finding(path, line, rule, message)
        for rule, check in rules.items()
        for line, message in check(located)
    ]
    allowances = list(_allowances(path))
    allowed = [f for f in found if any(a.covers(f) for a in allowances)]
    kept = [f for f in found if f not in allowed]
    kept += [
        Finding(path, a.line, "allowance", a.problem or "allows nothing that is there; remove it")
        for a in allowances
        if a.problem or (a.rule in rules and not any(a.covers(f) for f in allowed))
    ]
    kept.sort(key=lambda f: (f.line, f.rule, f.message))
    c = located.constitution
    return Linted(tuple(kept), len(c.critique_revision) + len(c.feedback), len(allowed))


# Principles beside each other ---------------------------------------------------------------------


def contradicting(located: Located) -> Found:
    """Two principles that ask for opposite things, or two cases of one that prefer them."""
    for pair in contradictions(located.constitution):
        yield _beside(located, pair, "asks for the opposite of", "or say when each holds")
    for case, other in _cases_beside(located.constitution.cases, _turned):
        if both := sorted({*case.principles} & {*other.principles}):  # others may well disagree
            line = located.lines[other.id, "better"]
            problem = f"prefers under {both[0]} what {other.id}, line {line}, does not; keep one"
            yield located.lines[case.id, "better"], f"{case.id} {problem}"


def near_duplicate(located: Located) -> Found:
    """Two principles, or few-shots, that say the same in other words; cases in the same ones."""
    for pair in near_duplicates(located.constitution):
        yield _beside(located, pair, "says the same as", "and give it more weight")
    for case, other in _cases_beside(located.constitution.cases, _texts):
        problem = f"is {other.id}, line {located.lines[other.id, 'id']}, word for word"
        remedy = "keep one, with the principles of both"
        yield located.lines[case.id, "id"], f"{case.id} {problem}; {remedy}"


Texts = tuple[str, str, str]  # of a case: what was said, the better reply and the worse


def _cases_beside(
    cases: Sequence[Case], wanted: Callable[[Case], Texts]
) -> Iterator[tuple[Case, Case]]:
    """Each case, and the first above it that has the texts that are wanted."""
    above: dict[Texts, Case] = {}
    for case in cases:
        if other := above.get(wanted(case)):
            yield case, other
        above.setdefault(_texts(case), case)


def _texts(case: Case) -> Texts:
    dialogue, better, worse = (
        " ".join(seen(text).casefold().split())
        for text in ("\0".join(case.dialogue), case.better, case.worse)
    )
    return dialogue, better, worse


def _turned(case: Case) -> Texts:
    """The texts of a case that prefers the other reply."""
    dialogue, better, worse = _texts(case)
    return dialogue, worse, better


def _beside(located: Located, pair: Pair, verdict: str, remedy: str) -> tuple[int, str]:
    """A finding on two entries, at the line of the one that stands further down."""
    (line, above), (last, below) = sorted(
        (located.lines[entry.id, field], f"{entry.id}.{field}")
        for entry, field in ((pair.one, pair.field), (pair.other, pair.other_field))
    )
    return last, f"{below} {verdict} {above}, line {line}; keep one, {remedy}"


# Principles by themselves -------------------------------------------------------------------------

# What is left of a sentence. Without a bound, a hostile text would be read from each of its words
# on to its end.
_REST = r"[^.!?]{0,500}"
_YES_OR_NO = re.compile(
    r"(?:^|[.!?:,;]\s+)(?:and )?(?:do|does|did|is|are|was|were|has|have|had|could|can|would|will"
    rf"|should|may|might)\b{_REST}\?",
    re.IGNORECASE,
)
_ASKS_FOR_FAULTS = re.compile(
    r"(?:^|[.!?:,;]\s+|\band )(?:please )?(?:identify|explain|point|find|quote|name|list|describe"
    r"|show|tell|say|count|spot|mark|cite|give|note|pick|highlight|(?:discuss|consider) (?:the )?"
    rf"(?:\w+ )?(?:ways?|how)|(?:in )?(?:what|where|which|who|whose|how|why)\b{_REST}\?)",
    re.IGNORECASE,
)
_WAY_OUT = re.compile(
    r"\bwhether\b|\bif (?:any|none|no|not|nothing|nobody|so|it|its|there|all|everyone|everything"
    r"|your|the (?:last )?reply|you)\b|\bor (?:say|that|state|admit|answer|write|confirm)\b"
    r"|\bsay so\b|\b(?:is|are) (?:fine|welcome|no)\b|\bneeds no\b|\bdoes not count\b",
    re.IGNORECASE,
)


def presupposed_faults(located: Located) -> Found:
    """Requests for faults that leave no way to say that there is none."""
    c = located.constitution
    critical: list[CritiquePrinciple | CritiqueExample]
    critical = [*c.critique_revision, *c.critique_examples]
    for p in critical:
        text = p.critique_request
        if _ASKS_FOR_FAULTS.search(text) and not (_YES_OR_NO.search(text) or _WAY_OUT.search(text)):
            yield (
                located.lines[p.id, "critique_request"],
                f"{p.id} asks for a fault as if there were one, and a model will find one; add a"
                " way out, such as 'or say that there is none'",
            )


_HARM = re.compile(
    r"\b(?:harm|hurt|danger|cruel|crim|illegal|unlawful|unsafe|safe|risk|injur|violen|abus)",
    re.IGNORECASE,
)


def tone_without_harm(located: Located) -> Found:
    """Principles on tone under which warm help with a crime would win."""
    for p in _principles(located):
        for field in ("revision_request", "question", "principle") if "tone" in p.tags else ():
            if not _HARM.search(getattr(p, field, "harm")):
                yield (
                    located.lines[p.id, field],
                    f"{p.id}.{field} is on tone and says nothing of harm, so that a friendly reply"
                    " which does harm wins; add a clause such as 'and helps with no harm', or drop"
                    " the tag",
                )


_WORDINGS = (
    (
        "question",
        re.compile(r"\band/or\b|\?.*\?", re.IGNORECASE | re.DOTALL),
        "asks two things at once",
        "ask one, and write another principle for the other",
    ),
    (
        "",
        re.compile(
            r"\b(?:not|never|cannot|\w+n[’']t)(?: \w+)? (?:not|never|without|fail|avoid|lack"
            r"|refrain|un(?:kind|fair|safe|true|clear|helpful|friendly|reasonable|like\w+|ethical|lawful)"
            r"|dis(?:honest|respect|agree)\w*|im(?:polite|moral|proper)|in(?:accurate|correct|just"
            r"|sensitive|appropriate)|il(?:legal|logical)|ir(?:relevant|responsible)"
            r"|harmless|careless|useless)\w*",
            re.IGNORECASE,
        ),
        "has a double negation",
        "say what is wanted instead",
    ),
    (
        "",
        re.compile(
            r"\b(?:obvious(?:ly)?|of course|everyone knows|as we all know|needless to say"
            r"|undoubtedly|unquestionably|surely|certainly|any (?:sane|decent|normal) \w+"
            r"|don[’']t you (?:agree|think)|wouldn[’']t you (?:say|agree)|isn[’']t it"
            r"|disgusting|idiotic|stupid|ridiculous|outrageous|so-called|common sense)\b",
            re.IGNORECASE,
        ),
        "leads the model",
        "drop the word and say what to look at",
    ),
    (
        "question",
        re.compile(
            r"\bwhich (?:\w+ ){1,4}wors[et]\b|\bwors[et] (?:of|one|response|reply)\b", re.IGNORECASE
        ),
        "asks for the worse response",
        "ask for the better one: its answer is the label",
    ),
    (
        "question",
        re.compile(r"\((?:A|B)\)|\b(?:[Oo]ption|[Rr]esponse|[Rr]eply) [AB]\b"),
        "names one of the two options",
        "ask which of both",
    ),
    (
        "",
        re.compile(r"\betc\b|\band so on\b|\band such\b|\bas appropriate\b", re.IGNORECASE),
        "leaves open what it means",
        "say it out",
    ),
)
_ASKING = ("critique_request", "revision_request", "question", "principle")


def leading_or_ambiguous(located: Located) -> Found:
    """Texts that put the answer into the model's mouth, or that can be read in two ways."""
    for p in _principles(located):
        for field in _ASKING:
            for only, pattern, problem, remedy in _WORDINGS:
                match = pattern.search(getattr(p, field, "")) if only in ("", field) else None
                if match:
                    said = match[0] if len(match[0]) < 40 else "..."
                    yield located.lines[p.id, field], f"{p.id}.{field} {problem} ({said}); {remedy}"


def lengths(located: Located) -> Found:
    """Texts of so few words that they say nothing, or of more than a small model keeps in mind."""
    for entry in _entries(located):
        for field, longest in LONGEST.items():
            count = word_count(getattr(entry, field, ""))
            least = SHORTEST if field in (*_ASKING, "opposite") else 0
            if hasattr(entry, field) and not least <= count <= longest:
                problem = f"has {count} words; write {least} to {longest}"
                yield located.lines[entry.id, field], f"{entry.id}.{field} {problem}"


def directions(located: Located) -> Found:
    """Questions that ask for what the opposite does, so that the labels would be turned around."""
    for p in located.constitution.feedback:
        question = wording(p.question)
        wanted, unwanted = (compare(question, wording(getattr(p, f))) for f in CONTRAST)
        if wanted.opposed & unwanted.shared and not unwanted.opposed:
            yield (
                located.lines[p.id, "question"],
                f"{p.id}.question asks for what its opposite does"
                f" ({', '.join(sorted(wanted.opposed))}), not its principle; turn one around",
            )


def contrasts(located: Located) -> Found:
    """Principles that do not differ from their opposites, or that share nothing with them."""
    for p in located.constitution.feedback:
        one, other = (re.findall(r"\w+", getattr(p, f).lower()) for f in CONTRAST)
        alike = len({*one} & {*other}) / len({*one} | {*other} | {""})
        line = located.lines[p.id, "opposite"]
        if one == other:
            yield (
                line,
                f"{p.id}.opposite is its principle, and the contrast is always 0; say"
                " what an assistant that violates it does",
            )
        elif alike < UNLIKE:
            yield (
                line,
                f"{p.id}.opposite has almost no word of its principle, so that the contrast"
                " measures their subjects; keep the frame, and turn the conduct around",
            )


# The document -------------------------------------------------------------------------------------


def authors(located: Located) -> Found:
    """Principles by someone whom the head of the file does not name."""
    for p in _principles(located):
        for author in set(authors_of(p)) - {*located.constitution.authors}:
            yield (
                located.lines[p.id, "author"],
                f"{author!r} is not among the authors, line {located.lines['', 'authors']};"
                " add the name there, or spell it as there",
            )


def weights(located: Located) -> Found:
    """Principles that are almost never drawn."""
    c = located.constitution
    for principles in (c.critique_revision, c.feedback):
        total = sum(p.weight for p in principles)
        for p in principles:
            share = p.weight / total
            if share < RARE / len(principles):
                yield (
                    located.lines[p.id, "weight" if p.weight != 1 else "id"],
                    f"{p.id} is drawn {share:.2%} of the time, less than a tenth of an even share;"
                    " raise its weight, lower the others', or take it out",
                )


def answers(located: Located) -> Found:
    """Few-shots that teach a model to prefer a letter."""
    c = located.constitution
    for name, examples in (
        ("multiple_choice", c.choice_examples),
        ("chain_of_thought", c.thought_examples),
    ):
        a, b = (sum(e.answer == letter for e in examples) for letter in "AB")
        if abs(a - b) > 1:
            yield (
                located.lines[examples[0].id, "answer"],
                f"few_shots.{name} are answered A {a} times and B {b} times; swap the options of"
                f" {abs(a - b) // 2}",
            )


RULES: dict[str, Callable[[Located], Found]] = {
    "near-duplicate": near_duplicate,
    "contradiction": contradicting,
    "presupposed-fault": presupposed_faults,
    "tone-without-harm": tone_without_harm,
    "wording": leading_or_ambiguous,
    "length": lengths,
    "direction": directions,
    "contrast": contrasts,
    "author": authors,
    "weight": weights,
    "answer-balance": answers,
}


BY_LABELS = "contrary-labels"  # a rule that needs a model, see the command


def _principles(located: Located) -> list[CritiquePrinciple | FeedbackPrinciple]:
    c = located.constitution
    return [*c.critique_revision, *c.feedback]


def _entries(located: Located) -> list[Entry | Case]:
    c = located.constitution
    shots: list[Entry | Case]
    shots = [*c.critique_examples, *c.choice_examples, *c.thought_examples, *c.cases]
    return [*_principles(located), *shots]


# What comments allow ------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Allowance:
    """A comment that says why a rule is wrong for a field, or for a file."""

    line: int
    rule: str
    covered: int | None  # a line, or None for all
    problem: str  # with the comment itself, or empty

    def covers(self, finding: Finding) -> bool:
        at = self.covered in (None, finding.line)
        return not self.problem and at and finding.rule == self.rule


_ALLOWS = re.compile(r"( *)#+[ \t]*lint-allow\b *([\w-]*):? *(.*)", re.IGNORECASE)
_MEANS_TO_ALLOW = re.compile(r"#[ \t]*lint[-_ ]?allow", re.IGNORECASE)


def _allowances(path: Path) -> Iterator[_Allowance]:
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        match = _ALLOWS.fullmatch(line)
        if not match:
            if _MEANS_TO_ALLOW.search(line):
                problem = "allows nothing; write '# lint-allow RULE: REASON' on a line of its own"
                yield _Allowance(number, "", None, problem)
            continue
        indent, rule, reason = match.groups()
        problem = ""
        if rule not in (*RULES, BY_LABELS):
            problem = f"{rule!r} is no rule; the rules are {', '.join((*RULES, BY_LABELS))}"
        elif not reason:
            problem = f"says not why; write '# lint-allow {rule}: REASON'"
        below = number + 1
        while below <= len(lines) and lines[below - 1].lstrip().startswith("#"):
            below += 1
        yield _Allowance(number, rule, below if indent else None, problem)
