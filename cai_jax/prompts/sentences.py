"""Where a text that was cut off last came to an end, in any script."""

import unicodedata
from enum import IntEnum

import regex

from cai_jax.prompts.abbreviations import NEVER_LAST, SOMETIMES_LAST

_AFTER = (  # quotes, brackets, notes and emoji after a stop
    r"(?:[\p{Pe}\p{Pf}\"'*_`~]|[ \u00A0\u202F][»›])*(?:\[\p{Nd}+\]|\p{No})*"
    r"(?:[ ]?[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\u200D\uFE0F])*"
)
_WIDE = r"\p{East_Asian_Width=W}"  # scripts that put no spaces between sentences
_ENDS = regex.compile(
    # Code has no sentences: a block ends with its fence, or not at all.
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n(?s:.)*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|(?P<cut>\Z))"
    r"|(?P<newline>\n)"
    # Where spaces stand between sentences, "3.5" and "a.org" are no ends.
    rf"|(?P<stop>(?<![.!?…‥])[.!?…‥]++|(?<=\p{{Greek}})[;\u037E])\p{{Pi}}?{_AFTER}(?=\s|$)"
    # Other stops end a sentence by themselves; Tibetan shads are stops, a Burmese comma is none.
    rf"|(?:[[\p{{Sentence_Terminal}}\u0F0D-\u0F12]--[.!?．\u104A]]|(?<!\p{{N}})．)+[!?…]*{_AFTER}"
    rf"|(?<={_WIDE})(?:[!?]+{_AFTER}|(?P<pause>[.…‥]+{_AFTER})(?={_WIDE}))"
    # Thai and Lao have spaces instead of stops, and spaces around abbreviations.
    r"|(?<=[\p{Thai}\p{Lao}])[^\S\n]+(?=(?![\p{Thai}\p{Lao}.]{1,5}\.)[\p{Thai}\p{Lao}]|$)",
    regex.M | regex.V1,
)

# What stands before an item of a list: a bullet, most symbols, a number or letter, "Step 1:".
_HAN_NUMBER = r"[\p{Han}&&\p{Numeric_Type=Numeric}]{1,3}"
_ORDINAL = (
    rf"(?:\p{{Nd}}{{1,3}}(?:\.\p{{Nd}}{{1,3}})*|{_HAN_NUMBER}|[IVXLivxl]{{1,6}}"
    rf"|[\p{{L}}--{_WIDE}]|[가나다라마바사아자차카타파하アイウエオカキクケコ甲乙丙丁])"
)
_BOLD = r"(?:\*\*|__)?"
_SPACE = rf"(?={_BOLD}\s)"
_MARKER = (
    rf"[ \t]*{_BOLD}(?:"
    r"[*+|\p{Pd}](?=\s)"
    r"|[•‣⁃∙·・･※\p{So}[\p{Sm}--\p{ASCII}]]"
    rf"|[（(]?{_ORDINAL}(?:[.)．:]{_SPACE}|[、．）：]|[.)](?={_WIDE}))"
    rf"|\p{{Nd}}{{1,3}}(?:\.\p{{Nd}}{{1,3}})+{_SPACE}"  # 1.1
    rf"|[\p{{L}}\p{{M}}]+[ ]?\p{{Nd}}{{1,3}}(?:[ ]?:{_SPACE}|：)"  # Step 1:
    rf"|第(?:\p{{Nd}}{{1,3}}|{_HAN_NUMBER})\p{{Han}}?[、，,：:]"
    r"|\p{No}|\p{Nd}\uFE0F?\u20E3)"
)
_NEXT_ITEM = regex.compile(_MARKER, regex.V1)
_ITEM = regex.compile(rf"{_MARKER}.*[^\s:：][ \t]*", regex.V1)
_BARE_MARKER = regex.compile(rf"[ \t]*{_BOLD}{_ORDINAL}", regex.V1)
_LOWER = regex.compile(r"[ \t]*\p{Ll}(?!\p{Ll}*\p{Lu})")  # but not "iPhone"
_WORDS = regex.compile(rf"[[\p{{L}}\p{{M}}\p{{N}}.,:'’-]--{_WIDE}]+", regex.V1)
# 12, U.S, p.m, a letter, and in Indian scripts a letter's name: one syllable.
_INITIALS = regex.compile(
    r"\p{Nd}{1,2}|\X(?:\p{L}\p{ccc=Virama}|\p{InSC=Consonant_Dead})?"
    r"|(?:\p{L}\p{M}*){1,2}(?:\.(?:\p{L}\p{M}*){1,3})+"
)
# These have stops of their own; a point is an abbreviation's.
_OTHER_STOP = regex.compile(r"[\p{Armenian}\p{Ethiopic}\p{Khmer}\p{Myanmar}\p{Tibetan}]$", regex.V1)
# Few words are as short without a vowel, most abbreviations are.
_CONSONANTS = regex.compile(
    r"[[\p{Latin}\p{Cyrillic}\p{Greek}]--[aeiouyаеиоуыэюяіїєαεηιουω]]{2,3}|[ก-ฮກ-ຮ]{2,4}", regex.V1
)


NEAR = 40  # characters that tell what a point belongs to


class _Certainty(IntEnum):
    """Whether a text may be cut here: DOUBTFUL, if it can be cut nowhere else."""

    NO_END = 0
    DOUBTFUL = 1
    END = 2


def whole_sentences(text: str) -> str:
    """The text up to its last whole sentence, item of a list or block of code; empty without one.

    What ends a sentence has Unicode's property Sentence_Terminal. A point that may belong to an
    abbreviation, an initial or a number ends one only in a text without any better end: there it
    would cost the whole text, elsewhere it costs a sentence.
    """
    first = regex.search(r"\p{L}", text)
    capitals = first is not None and first[0].isupper()
    ends = [(_certainty(match, capitals), match.end()) for match in _ENDS.finditer(text)]
    certainty, end = max(ends, default=(_Certainty.NO_END, 0))
    return text[:end] if certainty else ""


def _certainty(match: regex.Match[str], capitals: bool) -> _Certainty:
    text, start, end = match.string, match.start(), match.end()
    begin = text.rfind("\n", 0, start) + 1  # of the line
    if match["newline"]:
        following = text[end : end + 200].partition("\n")[0]
        return _after_line(text[begin:start], following, capitals)
    if match["pause"]:
        return _Certainty.DOUBTFUL
    if match["cut"] is not None:
        return _Certainty.NO_END
    if not match["stop"]:
        return _Certainty.END
    # "Wait... what", "Yahoo! is": sentences begin with capitals where the text does.
    if capitals and _LOWER.match(text, pos=end):
        return _Certainty.NO_END
    if match["stop"] != ".":
        return _Certainty.END
    return _after_point(text[max(begin, start - NEAR) : start], text[end : end + 10])


def _after_line(line: str, following: str, capitals: bool) -> _Certainty:
    """Whether a line is whole: an item of a list, a row of a table, or Thai."""
    if regex.search(r"[\p{Thai}\p{Lao}]$", line):
        return _Certainty.END
    if line.endswith(".") and _after_point(line[-NEAR:-1], "") == _Certainty.DOUBTFUL:
        return _Certainty.END  # "plan B.", as hardly a line is broken after an initial
    if not _ITEM.fullmatch(line):
        return _Certainty.NO_END
    if not following.strip() or _NEXT_ITEM.match(following):
        return _Certainty.END
    if capitals and _LOWER.match(following):
        return _Certainty.NO_END
    return _Certainty.DOUBTFUL if following[0] in " \t" else _Certainty.END


def _after_point(before: str, after: str) -> _Certainty:
    """Whether a point ends a sentence, by what stands near it in its line, and what follows.

    What follows can only make an end less certain, so that a text that was cut there stays whole.
    """
    words = _WORDS.findall(before)
    word = words[-1] if words and before.endswith(words[-1]) else ""
    pair = ".".join(part.rstrip(".") for part in words[-2:])  # "z.B" for "z. B"
    names = {name.casefold() for name in (word, pair, *regex.split(r"['’-]", word)[1:])}
    number = regex.match(r"[ \t]+\p{N}", after)
    if (
        names & NEVER_LAST
        or (names & SOMETIMES_LAST and number)  # "Art. 5"
        or _BARE_MARKER.fullmatch(before)
        or regex.search(r"\b\p{Lu}\. \p{Lu}$", before)  # the R of "J. R."
        or (len(word) == 1 and regex.match(r"[ \t]\p{L}{1,3}\.", after))  # its J, "p. ex."
    ):
        return _Certainty.NO_END
    if names & SOMETIMES_LAST or _may_be_abbreviation(word):
        return _Certainty.DOUBTFUL
    return _Certainty.DOUBTFUL if number and 0 < len(word) < 5 else _Certainty.END  # "No. 5"


def _may_be_abbreviation(word: str) -> bool:
    """Whether a point after the word may be its own, by the word's form."""
    letters = unicodedata.normalize("NFD", word.casefold())
    plain = regex.sub(r"(?<=[\p{Latin}\p{Cyrillic}\p{Greek}]\p{M}*)\p{M}", "", letters)
    short = _CONSONANTS.fullmatch(plain) and not word.isupper()  # "Ltd", not "TV"
    return bool(short or _INITIALS.fullmatch(word) or _OTHER_STOP.search(word))
