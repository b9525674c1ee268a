"""Texts of people and models as parts of a line of Markdown, which they cannot break out of."""

import re


def one_line(text: str) -> str:
    """A text without line breaks, after any of which Markdown begins something new."""
    return " ".join(text.split())


def code(text: str) -> str:
    """A text as code on one line, whatever stands in it."""
    said = one_line(text)
    marks = fence(said, 1)
    return f"{marks} {said} {marks}" if "`" in said else f"{marks}{said}{marks}"


def fence(text: str, least: int) -> str:
    """More backticks than any that stand together in a text, which so cannot close it."""
    return "`" * max([least, *(1 + len(run) for run in re.findall("`+", text))])


def table_row(*cells: str) -> str:
    """A line of a table."""
    return f"| {' | '.join(one_line(cell).replace('|', '/') for cell in cells)} |"
