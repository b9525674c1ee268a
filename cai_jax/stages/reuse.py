"""What an earlier version of a stage computed, and its next version need not compute again.

Samples and labels depend on no other: not on the rows beside them, nor on their order. So each is
known by a hash of all that determines it, and an edit of one principle costs what it changes. What
is computed again is equal to rounding, as it is for any two sizes of a batch: other rows pad it to
another width, or share a pack with it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from cai_jax.generation.engine import Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.parallel import hosts
from cai_jax.reading import FileError, parse_json, read_lines
from cai_jax.storage.sealed import problem_of

FILE = "computed.jsonl"  # in the folder of a stage: what it computed or took, a value a line


@dataclass(frozen=True)
class Sample:
    """What was sampled after a prompt."""

    ids: list[int]  # the stop token included, if one came
    finished: bool  # whether a stop token came within the limit


class Computed:
    """The values of one stage, by all that determines each.

    Args:
      origin: hash of what determines all of them: seed, models, and the stages below.
      earlier: folders of earlier versions of the stage; those that are no finished stage are
        passed over.
    """

    def __init__(self, origin: str = "", earlier: Iterable[Path] = ()):
        self._origin, self._folders = origin, tuple(earlier)
        self._values: dict[str, Any] = {}
        self.counts: dict[str, dict[str, int]] = {}  # by kind, how many were taken and computed

    @cached_property
    def _earlier(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        looked_at = self._folders if hosts.is_main() else ()
        whole = [str(folder) for folder in looked_at if not problem_of(folder, folder / FILE)]
        what = "which earlier versions of a stage are whole"
        for name in hosts.from_main(what, list[str], whole):
            if (file := Path(name) / FILE).exists():
                found |= dict(_pair(file, number, line) for number, line in read_lines(file))
        hosts.check_same(
            "what earlier versions of a stage computed",
            {"keys": digest(sorted(found))},
            "The workdir, config.reuse_from and config.stage_store must be shared folders.",
        )
        return found

    def fill(
        self,
        kind: str,
        asked: Sequence[Any],
        compute: Callable[[list[int]], Sequence[Any]],
    ) -> list[Any]:
        """A value for each thing asked, in order.

        Args:
          kind: of the values, for counts; values of two kinds are never mistaken for each other.
          asked: with ``kind``, all that determines each value besides ``origin``; JSON.
          compute: gives the values at some places of ``asked``, as JSON; not called for none.
        """
        names = [digest([self._origin, kind, one]) for one in asked]
        missing = [i for i, name in enumerate(names) if name not in self._earlier]
        fresh = dict(zip(missing, compute(missing) if missing else (), strict=True))
        values = [fresh[i] if i in fresh else self._earlier[n] for i, n in enumerate(names)]
        self._values |= dict(zip(names, values, strict=True))
        count = self.counts.setdefault(kind, {"taken": 0, "computed": 0})
        count["taken"] += len(names) - len(missing)
        count["computed"] += len(missing)
        return values

    def sample(
        self,
        kind: str,
        generator: Generator,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[np.ndarray],
        max_new_tokens: int,
        sampling: Sampling,
        name: str,
        shared: Sequence[int] | None = None,
    ) -> list[Sample]:
        """What ``generator.generate`` gives; ``kind`` tells which model of the stage it is."""
        how = [max_new_tokens, asdict(sampling)]
        asked = [[list(p), k.tolist(), how] for p, k in zip(prompts, keys, strict=True)]

        def compute(missing: list[int]) -> list[Any]:
            found = generator.generate(
                [prompts[i] for i in missing],
                [keys[i] for i in missing],
                max_new_tokens,
                sampling,
                name,
                shared and [shared[i] for i in missing],
            )
            return [[completion.ids, completion.finished] for completion in found]

        return [Sample(*value) for value in self.fill(kind, asked, compute)]

    def write(self, folder: Path) -> None:
        """Leaves the values in the folder of the stage, for its next version."""
        if self._values and hosts.is_main():
            with (folder / FILE).open("w", encoding="utf-8") as out:
                out.writelines(json.dumps(pair) + "\n" for pair in self._values.items())


def _pair(file: Path, number: int, line: str) -> tuple[str, Any]:
    """What determines a value, and the value."""
    remedy = "delete the file, and its values are computed again"
    found = parse_json(file, line, remedy, number)
    if not isinstance(found, list) or len(found) != 2 or not isinstance(found[0], str):
        raise FileError(file, f"is no computed value; {remedy}", number)
    return found[0], found[1]


def digest(parts: Any) -> str:
    """Hash of JSON, 32 hex digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
