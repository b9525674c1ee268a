"""What the README and the documentation say that can be tried: commands, snippets, links.

One convention: a ``sh`` fence holds commands, all of which are checked, and those below the line
``<!-- runs -->`` are run; a ``python`` fence is run; other fences are text.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from conftest import ROOT

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), DOCS / "compile" / "README.md"]
BESIDE = [  # what they are about; commands are indented there
    *sorted((ROOT / "constitutions").rglob("README.md")),
    ROOT / "datasets" / "README.md",
    ROOT / "launch" / "README.md",
    *sorted((ROOT / "adapters").rglob("README.md")),
    *sorted((ROOT / "benchmarks" / "results").rglob("README.md")),
]
RUNS = "<!-- runs -->"


@dataclass(frozen=True)
class Fence:
    """A block of code of a page."""

    page: Path
    line: int
    language: str
    text: str
    runs: bool

    @property
    def where(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, in order."""
    found, language, start, before = [], None, 0, ""
    lines = page.read_text("utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.startswith("```"):
            before = line if language is None and line.strip() else before
        elif language is None:
            language, start = line.removeprefix("```"), number
        else:
            text = "\n".join(lines[start : number - 1])
            found.append(Fence(page, start, language, text, before == RUNS))
            language, before = None, ""
    return found


@dataclass(frozen=True)
class Command:
    """A command of a page, as its words."""

    where: str
    words: tuple[str, ...]


def commands() -> list[Command]:
    """All commands of the pages and READMEs; synopses with brackets and dots are none."""
    found = []
    for page in PAGES:
        for fence in fences(page):
            if fence.language == "sh":
                found += [*_commands(fence.where, fence.text)]
    for page in BESIDE:
        text = page.read_text("utf-8").replace("\\\n", " ")
        where = str(page.relative_to(ROOT))
        for line in re.findall(r"^    ((?:python|launch/).*)$", text, re.M):
            if not re.search(r"\[| \.\.\.|=[A-Z_]+( |$)|(OLD|NEW|A|B|MERGED)\.yaml", line):
                found += [*_commands(where, line)]
    return found


def _commands(where: str, text: str) -> Iterator[Command]:
    for line in text.replace("\\\n", " ").splitlines():
        for part in line.split(" && "):
            if words := shlex.split(part, comments=True):
                yield Command(where, tuple(words))


def links(page: Path) -> Iterator[tuple[str, str]]:
    """Relative links and pictures of a page: the path, and the anchor after it."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S)
    yield from re.findall(r"\]\(([^)\s#:]*)(?:#([^)\s]*))?\)", text)
