"""Texts that are much alike, and yet say contrary things."""

import re
from collections import Counter

NOT = {
    *("not", "no", "never", "nobody", "nothing", "none", "neither", "nor", "without", "cannot"),
}
OTHERS = 2  # words in which texts may differ beside the negation that makes them contrary
_CONTRARIES = """
more less, most least, always never, always seldom, long short, longer shorter, long brief
all none, every no, before after, may must, must cannot, allow forbid, allow refuse, accept refuse
keep remove, include omit, include exclude, encourage discourage, share withhold, with without
formal informal, early late, first last, strict lenient, better worse, high low
increase decrease, public private
"""
CONTRARIES = {frozenset(pair.split()) for pair in re.split("[,\n]", _CONTRARIES)}


def contrary_words(one: str, other: str) -> str:
    """Why two texts that are much alike say contrary things; empty where no word shows it.

    They differ in a word and its contrary, or in a negation and hardly anything else. Contraries
    that are not in the list are not found.
    """
    left, right = _words(one), _words(other)
    here, there = left - right, right - left
    for pair in sorted((word, contrary) for word in here for contrary in there):
        if frozenset(pair) in CONTRARIES:
            return f"“{pair[0]}” in the one, “{pair[1]}” in the other"
    differing = [*here.elements(), *there.elements()]
    negations = [word for word in differing if word in NOT or word.endswith("n't")]
    if len(negations) % 2 and len(differing) - len(negations) <= OTHERS:
        return f"“{' '.join(negations)}” in one of them alone"
    return ""


def _words(text: str) -> Counter[str]:
    return Counter(re.findall(r"[\w']+", text.casefold().replace("’", "'")))
