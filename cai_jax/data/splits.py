"""The split: what every row of the files that people write is for.

A row is split by what must not leak: the first thing that its user says, or its ``group`` where
it names one. Whatever the files, one key has one purpose, so what is held out for one purpose is
held out everywhere.
"""

import hashlib
import re
import unicodedata
from collections.abc import Collection, Mapping
from itertools import count
from typing import Literal, get_args

from cai_jax.data.readers import LabelledPair, Prompt
from cai_jax.prompts.messages import first_user_text

Purpose = Literal["training", "second_model", "development", "audit", "evaluation"]
PURPOSES: tuple[Purpose, ...] = get_args(Purpose)
# Of 100 places on a line, which a purpose may take; it takes the first ones, training the rest.
# A percentage thus moves rows that can serve its purpose between it and training alone.
ZONES: dict[Purpose, range] = {
    "second_model": range(20),
    "development": range(20, 40),
    "audit": range(40, 60),
    "evaluation": range(60, 100),
}
# Of rows whose key is in no other file: what nothing would read is not held back.
SERVES: dict[str, tuple[Purpose, ...]] = {
    "red_team_prompts": ("training", "second_model", "development", "evaluation"),
    "helpful_prompts": ("training", "development", "evaluation"),
    "helpfulness_pairs": ("training", "second_model", "evaluation"),
    "harmlessness_pairs": ("development", "audit", "evaluation"),
    "red_team_seeds": ("training", "evaluation"),
}


def split_key(row: Prompt | LabelledPair) -> str:
    """What a row is split by."""
    return row.group or normalized(first_user_text(row.messages))


def normalized(text: str) -> str:
    """What a text says first, without case, spaces and punctuation.

    Prompts are taken out of transcripts and templates with the marks that say who speaks: what
    stands after the first such mark, up to the next, is what the text says first. A text of which
    nothing is left is only stripped.
    """
    mark = _BEGINS.match(text)
    said = _ENDS.split(text[mark.end() :], maxsplit=1)[0] if mark else text
    folded = unicodedata.normalize("NFKC", said.translate(_ACCENTS)).casefold()
    return folded.translate(_READ) or text.strip()


def purpose_of(
    key: str, percent: Mapping[Purpose, int], among: Collection[Purpose] = PURPOSES
) -> Purpose:
    """The one purpose of a key, by its hash.

    Args:
      key: from ``split_key``.
      percent: share of each purpose but training, at most its zone; training has the rest.
      among: purposes that rows of this key can serve, in proportion to their shares.

    Raises:
      ValueError: none of ``among`` has a share.
    """
    left = 100 - sum(percent.values())
    if not any(percent.get(purpose, left) for purpose in among):
        raise ValueError(f"no share is left for {' or '.join(among)}; lower the others")
    drawn = (_drawn(f"{salt} {key}", percent) for salt in count())
    return next(purpose for purpose in drawn if purpose in among)


def _drawn(text: str, percent: Mapping[Purpose, int]) -> Purpose:
    """The purpose of the place that a text has on the line."""
    place = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:8], "big") % 100
    within = (purpose for purpose, zone in ZONES.items() if place in zone[: percent[purpose]])
    return next(within, "training")


# Who speaks, in dialogues as text (hh-rlhf, Alpaca) and templates (ChatML, Llama, Mistral, Gemma).
_USER = r"(?:human|user|prompter|instruction|question|h|q)"
_OTHER = r"(?:assistant|ai|bot|model|gpt|response|output|answer|a)"
_BEGINS = re.compile(
    r"\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>)\s*)?"
    rf"(?:(?:#+ *)?\**{_USER} *\**:\**|#+ *{_USER}(?=\s)|\[INST\]|<\|{_USER}\|>"
    rf"|<\|im_start\|>{_USER}\s|<start_of_turn>{_USER}\s"
    rf"|<\|start_header_id\|>{_USER}<\|end_header_id\|>)",
    re.IGNORECASE,
)
_ENDS = re.compile(
    rf"\n[ \t]*(?:(?:#+ *)?\**(?:{_USER}|{_OTHER}) *\**:|#+ *(?:{_USER}|{_OTHER})\s)"
    rf"|\[/INST\]|</s>|<\|(?:im_end|eot_id|end|endoftext|{_OTHER})\|>|<end_of_turn>",
    re.IGNORECASE,
)
_ACCENTS = dict.fromkeys(map(ord, "`\u00b4"), "'")  # typed for an apostrophe
_SELECTORS = (0x034F, *range(0xFE00, 0xFE10))  # how the character before them is drawn


class _Read(dict[int, int | None]):
    """Code points that are read, for ``str.translate``; marks are: vowels of many scripts."""

    def __missing__(self, code: int) -> int | None:
        kind = unicodedata.category(chr(code))
        unread = kind[0] in "PZ" or kind in ("Cc", "Cf", "Sk") or code in _SELECTORS
        self[code] = None if unread else code
        return self[code]


_READ = _Read()
