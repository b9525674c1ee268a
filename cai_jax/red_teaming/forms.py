"""What a written prompt must look like: a question or request, of some length, in one script."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

WORDS = range(3, 61)  # a prompt of people has 3 to 119, of which one in a hundred is above 60
_NUMBER = re.compile(r"(?:^|\s)\(?\d{1,2}[.)](?:\s|$)")
_MARK = re.compile(r"(?:^|\n)\s*(?:user|person|human|assistant|question|answer)\s*:", re.IGNORECASE)
# What a request begins with, where no question mark stands in it.
_REQUEST_WORDS = """
act add answer any are be brainstorm build call can can't change check choose come compare compose
convince copy correct could couldn't count create dare define describe design did do does don't
draft draw drill explain extract fabricate feed find finish fix forget from get gimme give go got
guess guide hand have help how how's i i'd i'll i'm if imagine in invent is it's just keep lend let
let's list make me my name need now offer outline plan play please pretend propose prove put rank
read recommend repeat rephrase rewrite roast role-play say sell send settle shorten should show
simplify sketch so solve sort speak spell state suggest sum summarise summarize take talk teach tell
test think translate turn use walk wanna want we we're were what what's whats when where where's
which who who's why will would write you you're your
"""
_REQUESTS = frozenset(_REQUEST_WORDS.split())
_SENTENCE = re.compile(r"[.!?:,;]+\s+")
SCRIPT_SHARE = 0.9  # of letters
VARIETY = 0.5  # different words to words


def problem_of(text: str, script: str) -> str:
    """What is wrong with the form of a prompt; empty: nothing.

    Args:
      text: of a user's turn.
      script: in which it is to be written, as ``main_script`` names it.
    """
    words = text.split()
    if len(words) not in WORDS:
        return "length"
    if _NUMBER.search(text) or _MARK.search(text) or "\n" in text:
        return "numbering"
    scripts = _scripts(text)
    if scripts[script] < SCRIPT_SHARE * max(scripts.total(), 1):
        return "script"
    if len({word.casefold() for word in words}) < VARIETY * len(words):
        return "repetition"
    begins = {
        sentence.split()[0].casefold().strip("\"'")
        for sentence in _SENTENCE.split(text)
        if sentence.strip()
    }
    if "?" not in text and not begins & _REQUESTS:
        return "no request"
    return ""


def main_script(texts: Iterable[str]) -> str:
    """The script of most letters: LATIN, CYRILLIC, CJK ..., as Unicode names characters."""
    ((script, _),) = sum(map(_scripts, texts), Counter[str]()).most_common(1) or [("LATIN", 0)]
    return script


def _scripts(text: str) -> Counter[str]:
    return Counter(
        unicodedata.name(character, "UNNAMED").split()[0]
        for character in text
        if character.isalpha()
    )


def list_items(text: str, number: int, finished: bool) -> list[str]:
    """Items of a numbered list that goes on at ``number``, its mark left out.

    The last one is not whole unless the text is ``finished``.
    """
    items, rest = list[str](), text
    while True:
        item, *after = re.split(rf"\s+{number + 1}[.)]\s", rest, maxsplit=1)
        if not after:
            break
        items.append(item)
        (rest,), number = after, number + 1
    # What stands on a further line, without a number, is no item.
    if finished or "\n" in rest.strip():
        items.append(rest)
    return [item.strip().split("\n")[0].strip().strip('"').strip() for item in items]
