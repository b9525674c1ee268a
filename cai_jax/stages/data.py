"""Files that people write, and how their rows are split."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cai_jax.config import Config, ConfigError, ConstitutionConfig, DataConfig
from cai_jax.constitution.schema import Constitution, load_constitution
from cai_jax.data.readers import (
    Prompt,
    is_held_out,
    read_classed_replies,
    read_pairs,
    read_prompts,
    read_twins,
)

READERS: Mapping[str, Callable[[Path], list[Any]]] = {
    "red_team_prompts": read_prompts,
    "helpful_prompts": read_prompts,
    "helpfulness_pairs": read_pairs,
    "harmlessness_pairs": read_pairs,
    "twins": read_twins,
    "evasiveness": read_classed_replies,
}
AUDIT_PERCENT = 50  # of the harmlessness pairs: they are for the audit alone


@dataclass(frozen=True)
class Selection:
    """Rows of a file: one side of its split, and how many of it.

    Attributes:
      file: field of ``config.data``.
      side: of the split; "all" of a file that is never trained on.
      count: how many, from a config; None: all.
      field: the config's field of the count, for errors; empty: fewer rows are no error.
    """

    file: str
    side: Literal["training", "held_out", "development", "audit", "all"]
    count: Callable[[Config], int | None] = lambda config: None
    field: str = ""


def first(file: str, side: Literal["training", "held_out", "all"], field: str) -> Selection:
    """As many rows as a field of the config says."""
    block, name = field.split(".")
    return Selection(file, side, lambda c: getattr(getattr(c, block), name), field)


class Data:
    """Prompts, pairs and the constitution of a run; files are read when they are first needed."""

    def __init__(self, constitution: ConstitutionConfig, data: DataConfig):
        self._constitution, self._data = constitution, data
        self._files: dict[str, list[Any]] = {}

    @cached_property
    def constitution(self) -> Constitution:
        """The constitution: of the file, as many principles as the config says.

        Raises:
          ConfigError: it has fewer.
        """
        c = self._constitution
        whole = load_constitution(Path(c.path))
        for name, there in (
            ("critique_principles", whole.critique_revision),
            ("feedback_principles", whole.feedback),
        ):
            if getattr(c, name) > len(there):
                raise ConfigError(
                    f"config.constitution.{name}: {getattr(c, name)}, but {c.path} has {len(there)}"
                )
        return replace(
            whole,
            critique_revision=whole.critique_revision[: c.critique_principles or None],
            feedback=whole.feedback[: c.feedback_principles or None],
        )

    @property
    def held_out_percent(self) -> int:
        """Share of prompts and pairs that is held out, by hash."""
        return self._data.held_out_percent

    def path(self, file: str) -> str:
        """A file as the config names it."""
        return getattr(self._data, file)

    def rows(self, file: str) -> list[Any]:
        """All rows of a file."""
        if file not in self._files:
            self._files[file] = READERS[file](Path(self.path(file)))
        return self._files[file]

    def side(self, file: str, side: str) -> list[Any]:
        """The rows of a file on one side of its split."""
        if side == "all":
            return self.rows(file)
        held_out = side in ("held_out", "audit")
        percent = AUDIT_PERCENT if side in ("audit", "development") else self.held_out_percent
        return [r for r in self.rows(file) if is_held_out(r.messages, percent) == held_out]

    def select(self, selection: Selection, config: Config) -> list[Any]:
        """The rows that a stage declares, in the order of the file; without any, it is not read."""
        count = selection.count(config)
        return [] if count == 0 else self.side(selection.file, selection.side)[:count]


def repeated(prompts: list[Prompt], times: int) -> list[Prompt]:
    """Every prompt several times, under ids of their own, so that samples differ."""
    again = [replace(p, id=f"{p.id}.{n}") for n in range(1, times) for p in prompts]
    return [*prompts, *again]
