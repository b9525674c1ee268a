"""Letters of any script: which a text may have, which are seen, which have spaces between words."""

import unicodedata

import regex

# Scripts without spaces between words; for a class of ``regex``.
UNSPACED = r"\p{Han}\p{Hira}\p{Kana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_UNSPACED = regex.compile(rf"[{UNSPACED}]")
_NO_TEXT = regex.compile(r"[\p{Cc}\p{Cs}--[\t\n\r]]", regex.V1)
_NO_WIDTH = regex.compile(r"\p{Default_Ignorable_Code_Point}")
_NO_NAME = regex.compile(r"[\p{Cc}\p{Cf}\p{Z}\p{Default_Ignorable_Code_Point}--[ ]]", regex.V1)


def odd_letter(text: str) -> str:
    """What is wrong with the first letter that no text may have, and the remedy; empty: none.

    No file in UTF-8 holds half of a surrogate pair, but an escape of JSON or YAML makes one.
    """
    found = _NO_TEXT.search(text)
    if not found:
        return ""
    point = f"U+{ord(found[0]):04X}"
    if unicodedata.category(found[0]) == "Cs":
        return f"has half of a surrogate pair ({point}); write the character itself"
    return f"has the control character {point}; take it out"


def odd_name(name: str) -> str:
    """What is wrong with a name that people have to tell from others, and the remedy; or empty."""
    if name != name.strip():
        return "begins or ends with white space; take it out"
    found = _NO_NAME.search(name)
    return f"has U+{ord(found[0]):04X}, which nobody sees; take it out" if found else ""


def seen(text: str) -> str:
    """The text as readers see it: nothing of no width, one way to write each letter."""
    return _NO_WIDTH.sub("", unicodedata.normalize("NFC", text))


def is_unspaced(letter: str) -> bool:
    """Whether it is of a script without spaces between words."""
    return bool(_UNSPACED.match(letter))


def word_count(text: str) -> int:
    """How many words a text has; where no spaces are, two letters are about one word."""
    return sum(max(1, len(_UNSPACED.findall(part)) // 2) for part in text.split())
