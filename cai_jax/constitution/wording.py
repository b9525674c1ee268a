"""What a principle asks for, by its words: which texts say the same, and which the opposite.

A text becomes a set of signed meanings. Words of form are left out, the others reduced to their
stems; words that AXES joins are one meaning, with the sign of their side; a negation turns the
signs of what follows it in its clause. Two texts that share most of their meanings say the same
where the signs agree, and the opposite where they don't. No model is asked: whoever wonders at a
verdict can follow it word by word.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass
from functools import cache

import snowballstemmer

from cai_jax.constitution.words import AXES, FORM, JOINTS, NEGATIONS, NOBODY
from cai_jax.letters import seen

# Letters of a text that are read: ten times what lint asks a principle to keep to.
LETTERS = 5000
# A file may come from anybody. So that no text makes reading it take longer than its length says,
# nothing below repeats without a bound, but over the letters of one word.
_SENTENCE = re.compile(r"[^.?!]*[.?!]?")
_STAYS = re.compile(
    r"\b(?:repeat(?:ed)?(?! the (?!same|last|reply))|again|once more|unchanged|unaltered|the same"
    r"|as it (?:is|was|stands)|keep it|(?:don't|do not) change|without changes"
    r"|leave (?:\S+ ){1,9}be)\b"
)
_REST = r"[^.,;:?!]{0,100}"  # of a clause
_OF_NOUNS = r"no|without|less|fewer|(?:avoid|remov|omit|drop|exclud)\w*"
_KEEPS = r"keep|protect|guard|shield|spare"
_TAIL = r"(?=(?: [\w-]+){1,2}(?:[.,;:?!]|$))"  # one or two words, and the clause is over
_PHRASES = [  # what no single word shows
    (re.compile(r"\bno one\b"), "nobody"),
    (re.compile(r"\b(?:can't|cannot|won't|(\w+)n't)"), r"\1 not"),
    (re.compile(r"\bnot (?:only|just|merely|least)\b|\bno (?:matter|longer|doubt)\b"), " "),
    (re.compile(r"\bmak\w+ sure\b|'s?\b"), " "),
    (re.compile(r"\b(?:mak\w+|made) up\b"), "invent"),
    (re.compile(r"\bin place of\b"), "instead"),
    (re.compile(r"\b(?:free of|free from|leav\w+ out|turns? away from)\b"), "without"),
    (re.compile(rf"\bleav\w+ ({_REST}) out\b"), r"without \1"),
    (re.compile(rf"\b(?:{_KEEPS})s?(?: \w+){{0,3}} (?:from|against)\b"), "without"),
    (re.compile(rf"\b(prefer\w*)\b({_REST}?) (?:to|over)\b"), r"\1\2 above"),
    (re.compile(r"\bfurther (?:away )?from\b"), "without"),
    # "must never be told" turns what stands before it around as well, and so does "helps less".
    (re.compile(r"\b(?:not|never)(?: \w+)? be\b"), "no"),
    (re.compile(r"\bless(?= *(?:[.,;:?!]|$)| (?:about|in|of|on|to)\b)"), "no"),
    # A list is one clause: "no body, childhood or grudges".
    (re.compile(r",(?=(?: [\w-]+){1,2}(?:,| or| and))"), " "),
    (re.compile(rf"\b({_OF_NOUNS})\b({_REST})\band(?! no){_TAIL}"), r"\1\2or"),
]
_TOKEN = re.compile(r"[^\W\d_](?:[\w-]*\w)?|[.,;:!?—–]")
_UN = re.compile(r"(?:un|dis|in|im|il|ir|non-?|mis)(?=\w{4})")
_UN_ALONE = re.compile(r"^(?:un(?!der|i|til|less|to)|non-?)(?=\w{5})")  # of words that AXES lacks
MANY = 8  # texts of a file: what most of them share is its form
ALIKE = 0.64  # of their meanings, what two texts that ask for the same have in common
TURNED, EQUAL = 0.5, 0.75  # of texts that ask for opposite things; of texts that are one but for it
_stem = cache(snowballstemmer.stemmer("english").stemWord)


def _sides() -> dict[str, dict[str, int]]:
    """The lines of AXES that have a stem, by their first words, and its side on each."""
    found: dict[str, dict[str, int]] = {}
    for line in AXES.strip().splitlines():
        for side, sign in zip(line.split("|"), (1, -1), strict=True):
            for word in side.split():
                found.setdefault(_stem(word), {})[line.split()[0]] = sign
    return found


_SIDES = _sides()
_ANTONYMS = {name for sides in _SIDES.values() for name, side in sides.items() if side < 0}
_JOINTS, _NOBODY = set(JOINTS.split()), set(NOBODY.split())
_NEGATIONS = {_stem(word) for word in NEGATIONS.split()}
_IGNORED = {*NOBODY.split(), *FORM.split(), *(_stem(word) for word in FORM.split())}


@dataclass(frozen=True)
class Wording:
    """What a text asks for.

    Attributes:
      stems: of its words, without those of form.
      meanings: 1 or -1 for each, or 0 where the text has it both ways.
      denied: the meanings that stand next to a negation: what it denies first of all.
    """

    stems: frozenset[str]
    meanings: Mapping[str, int]
    denied: frozenset[str]


@cache
def wording(text: str) -> Wording:
    """Reads the meanings of a text, and their signs."""
    stems, denied, sums = set[str](), set[str](), dict[str, int]()
    for clause in _clauses(_plain(text[:LETTERS])):
        sign = 1 if _NOBODY.isdisjoint(clause) else -1
        after_negation = False
        for token in clause:
            stem = _stem(token)
            if stem in _NEGATIONS:
                sign, after_negation = -sign, True
            elif token not in _IGNORED and stem not in _IGNORED:
                sides = _meanings(token)
                sums.update({m: sums.get(m, 0) + sign * side for m, side in sides.items()})
                stems.add(stem)
                denied |= sides.keys() if after_negation or -1 in sides.values() else set()
                after_negation = False
    meanings = {name: (total > 0) - (total < 0) for name, total in sums.items()}
    return Wording(frozenset(stems), meanings, frozenset(denied))


@dataclass(frozen=True)
class Comparison:
    """How two texts stand to each other.

    Attributes:
      shared: the meanings that both have.
      opposed: those of them whose signs differ.
      alike: the share of their meanings that both have.
      same: whether the texts ask for one thing.
      opposite: whether they ask for opposite things; if neither, for things that differ.
    """

    shared: frozenset[str]
    opposed: frozenset[str]
    alike: float
    same: bool
    opposite: bool


def compare(one: Wording, other: Wording, form: Set[str] = frozenset()) -> Comparison:
    """Compares what two texts ask for.

    Args:
      one: a text.
      other: another one.
      form: meanings that are left out, since most texts of the file have them.
    """
    shared = (one.meanings.keys() & other.meanings.keys()) - form
    either = (one.meanings.keys() | other.meanings.keys()) - form
    opposed = {m for m in shared if one.meanings[m] * other.meanings[m] < 0}
    alike = len(shared) / len(either) if either else 0.0
    if alike < TURNED:
        return Comparison(frozenset(shared), frozenset(opposed), alike, False, False)
    # An antonym turns a text around. So does a negation, of something that both texts speak of, if
    # it reaches most of what they say or they say little else.
    denied = one.denied | other.denied
    most = 2 * len(opposed) > len(shared) and (len(shared) > 1 or alike == 1)
    negated = (most or alike >= EQUAL) and (not denied or not denied.isdisjoint(opposed))
    turned = (negated and bool(opposed)) or not _ANTONYMS.isdisjoint(opposed)
    # One meaning is too little to tell paraphrases by.
    enough = len(shared) > 1 or one.stems == other.stems
    # Texts that each speak of something of their own may differ in that, not in what they want.
    own = either - shared
    apart = not own.isdisjoint(one.meanings) and not own.isdisjoint(other.meanings)
    return Comparison(
        shared=frozenset(shared),
        opposed=frozenset(opposed),
        alike=alike,
        same=alike >= ALIKE and enough and not turned and 2 * len(opposed) < len(shared),
        opposite=alike >= (ALIKE if apart else TURNED) and turned,
    )


def form_of(wordings: Collection[Wording]) -> set[str]:
    """Meanings that over half of the texts have, where there are enough to tell."""
    if len(wordings) < MANY:
        return set()
    counts = Counter(meaning for w in wordings for meaning in w.meanings)
    return {meaning for meaning, count in counts.items() if 2 * count > len(wordings)}


def _plain(text: str) -> str:
    """The text in lower case, with single words for phrases."""
    lowered = " ".join(seen(text).lower().replace("’", "'").split())
    # Where a revision request says when a reply may stay as it is, it asks for nothing.
    asks = (said for said in _SENTENCE.findall(lowered) if not _STAYS.search(said))
    plain = " ".join(asks)
    for pattern, word in _PHRASES:
        plain = pattern.sub(word, plain)
    return plain


def _clauses(text: str) -> Iterator[list[str]]:
    """The words of each clause."""
    clause: list[str] = []
    for token in _TOKEN.findall(text):
        if token in _JOINTS or not token[0].isalpha():
            yield clause
            clause = []
        else:
            clause.append(token)
    yield clause


@cache
def _meanings(word: str) -> dict[str, int]:
    """What a word means, and on which side: its lines in AXES, or its stem."""
    for base, sign in _bases(word):
        if _stem(base) in _SIDES:
            return {name: sign * side for name, side in _SIDES[_stem(base)].items()}
    plain = _UN_ALONE.sub("", word)
    return {_stem(plain): 1 if plain == word else -1}


def _bases(word: str) -> list[tuple[str, int]]:
    """The word, then what comparison, prefix and suffix may have been put to, with a sign."""
    found = [(word, 1)]
    for ending in ("er", "est"):
        if word.endswith(ending):
            cut = word.removesuffix(ending)
            found += [(cut, 1), (cut + "e", 1), (cut[:-1] + "y", 1), (cut[:-1], 1)]
    found += [(_UN.sub("", base, count=1), -1) for base, _ in list(found) if _UN.match(base)]
    if word.endswith("less"):
        found.append((word.removesuffix("less"), -1))
    if word.endswith("ful"):
        found.append((word.removesuffix("ful"), 1))
    return found
