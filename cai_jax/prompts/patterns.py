"""Patterns of a tokenizer: where a text is cut and what is replaced, as regular expressions.

A stranger's pattern may take for ever at a text, or end the process in a panic, once its steps grow
with a power of the text's length. So before a tokenizer is loaded, the child that renders templates
tries its patterns on long runs of what they match. It gets them without the vocabulary: it compiles
them too, and the whole costs some milliseconds.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from cai_jax.prompts.template import CHILD
from cai_jax.reading import DEPTH, TEXT_BYTES, FileError, open_regular

LETTERS = 2000  # of a text; a step for each pair of letters takes milliseconds, one for three hangs
RUNS = 64  # of which texts are made, at most
COMMON = ("a", "A", "1", " ", "\n", "\t", ".", ",", "'", "_", "é", "字", "aA1 ", "\r\n")


@dataclass(frozen=True, config=ConfigDict(extra="ignore"))
class _Parts:
    """A tokenizer without its vocabulary."""

    normalizer: Any = None
    pre_tokenizer: Any = None
    post_processor: Any = None
    decoder: Any = None
    added_tokens: Any = ()


_PARTS = TypeAdapter(_Parts)


def check_patterns(file: Path) -> None:
    """Tries the patterns of a tokenizer.json; one that is broken otherwise is left to its loader.

    Raises:
      FileError: encoding or decoding a text takes too long, or ends in an error.
    """
    with open_regular(file) as opened:
        content = opened.read(TEXT_BYTES + 1)
    try:
        parts = asdict(_PARTS.validate_json(content))
        patterns = [*_patterns(parts, DEPTH)]
    except (ValidationError, RecursionError):
        return
    if not patterns:
        return
    model = {"type": "BPE", "vocab": {}, "merges": []}
    tokenizer = json.dumps({"version": "1.0", **parts, "model": model})
    reply = CHILD.ask({"tokenizer": tokenizer, "texts": [*_texts(patterns)]})
    if "error" in reply:
        longest = max(patterns, key=len)
        shown = longest if len(longest) <= 60 else f"{longest[:60]}..."
        raise FileError(
            file,
            f"a pattern of the tokenizer, such as {shown!r}, cannot be used on long texts "
            f"({reply['error']}); take the tokenizer from whoever published the model",
        )


def _patterns(found: Any, depth: int) -> Iterator[str]:
    """Regular expressions in a part of a tokenizer."""
    if not depth:
        return
    inner = found.values() if isinstance(found, dict) else found if isinstance(found, list) else ()
    if isinstance(found, dict) and isinstance(found.get("Regex"), str):
        yield found["Regex"]
    for value in inner:
        yield from _patterns(value, depth - 1)


def _texts(patterns: list[str]) -> Iterator[str]:
    """Runs of letters and words of the patterns, and of common ones, each before an odd end.

    The end holds what a match may not go over, and then all that a match may need.
    """
    words = [word for pattern in patterns for word in re.findall(r"\w{1,20}|[^\w\s]", pattern)]
    letters = [letter for pattern in patterns for letter in pattern if letter.isalnum()]
    end = "字\0\n" + "".join(reversed(dict.fromkeys(reversed("".join(words)))))[-RUNS:]
    for run in [*dict.fromkeys((*COMMON, *letters, *words))][:RUNS]:
        yield run * (LETTERS // len(run)) + end
