"""Where a text that was cut off last came to an end, in any script."""

import unicodedata

import regex

_AFTER = (  # quotes, brackets, notes and emoji after a stop
    r"(?:[\p{Pe}\p{Pf}\"'*_`~]|[ \u00A0\u202F][»›])*(?:\[\p{Nd}+\])*"
    r"(?:[ ]?[\p{Extended_Pictographic}\p{Emoji_Modifier}\p{Regional_Indicator}\u200D\uFE0F])*"
)
# Numbers and letters before an item, and those that need no space after them in CJK text.
_ORDINAL = r"(?:\p{Nd}{1,3}|[一二三四五六七八九十]{1,3}|[IVXLivxl]{1,6}|\p{L})"
_MARKER = (
    r"(?:(?:\*\*|__)?(?:[-*+•◦▪–—|](?=\s)"
    rf"|[（(]?{_ORDINAL}[.)．](?=\s)|[（(]?{_ORDINAL}(?:[、．）]|[.)](?=[\p{{Han}}\p{{Hira}}\p{{Kana}}]))"
    r"|\p{No}))"
)
# A point after these at the start of a line is no end; one letter's never is.
_BARE_MARKER = regex.compile(r"^[ \t]*(?:[IVXLivxl]{2,6}|[가나다라마바사아자차카타파하])$", regex.M)
_ENDS = regex.compile(
    # Code has no sentences: a block ends with its fence, or not at all.
    r"^[ \t]*(?P<fence>`{3,}|~{3,})[^\n]*\n(?s:.)*?(?:^[ \t]*(?P=fence)[`~]*[ \t]*$|(?P<cut>\Z))"
    # An item of a list, or a row of a table, ends with its line, unless more is to come.
    rf"|^[ \t]*{_MARKER}[^\S\n]*[^\n]*[^\s:：][ \t]*\n"
    # Where spaces stand between sentences, "3.5" and "a.org" are no ends.
    rf"|(?P<stop>(?<![.!?…‥])[.!?…‥]++|(?<=\p{{Greek}})[;\u037E])\p{{Pi}}?{_AFTER}(?=\s|$)"
    # Other stops end a sentence by themselves; Tibetan shads are stops, a Burmese comma is none.
    rf"|(?:[[\p{{Sentence_Terminal}}\u0F0D-\u0F12]--[.!?．\u104A]]|(?<!\p{{N}})．)+[!?…]*{_AFTER}"
    # Thai and Lao have spaces instead of stops.
    r"|(?<=[\p{Thai}\p{Lao}])(?:[^\S\n]+(?=[\p{Thai}\p{Lao}]|$)|\n)",
    regex.M | regex.V1,
)
_WORD = regex.compile(
    r"[[\p{L}\p{M}\p{N}.,:'’-]--[\p{Han}\p{Hira}\p{Kana}\p{Thai}\p{Lao}]]*$", regex.V1
)
# Few words are short and without a vowel, most abbreviations are; those that have one, without
# accents, where they are no words of their language.
_CONSONANTS = regex.compile(
    r"[[\p{Latin}\p{Cyrillic}\p{Greek}]--[aeiouyаеиоуыэюяіїєαεηιουω]]{2,4}", regex.V1
)
_WITH_VOWELS = (
    "prof rev hon gen capt col maj sen rep gov pres inc corp co bros dept univ ave etc approx esp "
    "viz fig figs vol al est jan feb apr aug sept oct nov dec usw evtl inkl sog geb abb kap tel ca "
    "mme mlle sra srta dra ud uds ej pag num avda gral exmo exma sig sigg dott avv ecc bijv enz "
    "mevr itd itp ul godz inz napr atd apod osv esim jne ул тыс руб напр проф акад обл δηλ αρ σελ "
    "प्रो"
)
_ABBREVIATIONS = frozenset(_WITH_VOWELS.split())


def whole_sentences(text: str) -> str:
    """The text up to its last whole sentence, item of a list or block of code; empty without one.

    What ends a sentence has Unicode's property Sentence_Terminal. A point that may belong to an
    abbreviation, an initial or the number of an item ends none.
    """
    first = regex.search(r"\p{L}", text)
    capitals = first is not None and first[0].isupper()
    found = reversed(list(_ENDS.finditer(text)))
    return text[: next((match.end() for match in found if _is_end(match, capitals)), 0)]


def _is_end(match: regex.Match[str], capitals: bool) -> bool:
    if not match["stop"]:
        return match["cut"] is None
    # "Wait... what", "Yahoo! is": sentences begin with capitals where the text does.
    if capitals and regex.match(r"[ \t]+\p{Ll}", match.string, pos=match.end()):
        return False
    if match["stop"] != ".":
        return True
    if _BARE_MARKER.search(match.string, endpos=match.start("stop")):
        return False
    word = _WORD.search(match.string, endpos=match.start("stop"))[0]
    before_number = regex.match(r"[ \t]+\p{N}", match.string, pos=match.end())
    return not (_is_abbreviation(word) or (len(word) < 5 and before_number))  # "No. 5"


def _is_abbreviation(word: str) -> bool:
    """Whether a point after the word may be its own: Dr, U.S, an initial, the number of an item."""
    if regex.fullmatch(r"\p{Nd}{1,2}|(?!\p{Hangul})\p{L}\p{M}*|\p{L}{1,2}(?:\.\p{L}{1,3})+", word):
        return True
    letters = unicodedata.normalize("NFD", word.casefold())
    plain = regex.sub(r"(?<=[\p{Latin}\p{Cyrillic}\p{Greek}]\p{M}*)\p{M}", "", letters)
    short = _CONSONANTS.fullmatch(plain) and not word.isupper()  # "Ltd", not "TV"
    return plain in _ABBREVIATIONS or bool(short)
