"""Log-probabilities of given text, and scores of a preference model.

Rows are packed, so that next to nothing is padding. Those that begin alike, as those of one pair
under many principles do, share what they begin with: it is read once, and their rests are packed
behind it.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from cai_jax.generation.batching import (
    check_filled,
    check_longest,
    doubled,
    doublings,
    pad_rows,
)
from cai_jax.generation.finite import check_finite
from cai_jax.generation.journal import recorded
from cai_jax.generation.readings import (
    CHOICES,
    FEATURES,
    LOGPROBS,
    Reading,
    abstract_prefix,
    prefix_program,
)
from cai_jax.generation.sharing import Packed, groups, laid_out, pack, pack_whole
from cai_jax.models.blueprint import Model
from cai_jax.models.decoder import Prefix
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import (
    abstract_batch,
    abstract_replicated,
    batch_multiple,
    offload_to_host,
    put_batch,
    replicate,
    rounded_up,
)
from cai_jax.parallel.program import Program, abstract
from cai_jax.progress import progress

READ = "log-probabilities or scores"
SHARED_TOKENS = 64  # least width of a program for what rows share, and for their rests
REST_TOKENS = 512  # of the rests that are packed into one row
PACK_ROWS = 32  # rows, or rests, in one pack at most
KNOWN_ROWS = 2**13  # whose features are kept, the latest: 256 MiB on each host at 70 billion


# Tokens that packs go on from [packs, width], and what reads them when they are needed first.
HeldPrefix = tuple[np.ndarray, Callable[[], Prefix[jax.Array]]]


@dataclass(frozen=True)
class Asked:
    """What a call asks of rows."""

    name: str  # of the call, in logs and errors
    reading: Reading
    more: tuple[jax.Array | jax.ShapeDtypeStruct, ...] = ()  # arguments after rows
    static: Mapping[str, Any] = field(default_factory=dict)


class Scorer:
    """Runs one model over rows of any length, packed and batched.

    Every method that runs it raises NotFiniteError where what it gives is NaN or infinite.

    Args:
      model: at rest; a Decoder, or a PreferenceModel for ``preference_scores``. Abstract where
        only programs are asked for.
      mesh: that it is sharded over.
      batch_size: packs of rows run together; rounded up to what the mesh divides.
      pack_tokens: of the rows in one pack; a longer row has a pack of twice that, and so on.
      max_tokens: that a row may have; None: no limit.
      offload: keep the parameters in the hosts' memory between calls.
      padding_id: tokens that ``preference_scores`` leaves out at the end of a row; None: none.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        batch_size: int,
        pack_tokens: int = 256,
        max_tokens: int | None = None,
        offload: bool = False,
        padding_id: int | None = None,
    ):
        self.graph, self.mesh, self.origin = model.graph, mesh, model.origin
        self.abstract_params, self.size = abstract(model.params), model.size
        self.params = offload_to_host(model.params, offload)
        self.shards = batch_multiple(mesh)
        # So many packs, or the last few, are read side by side; fewer where a prefix is held.
        many = rounded_up(batch_size, self.shards)
        few = rounded_up(max(1, many // 4), self.shards)
        self.batch_sizes = list(dict.fromkeys((many, self.shards)))
        self.rest_batch_sizes = list(dict.fromkeys((few, self.shards)))
        self.pack_tokens, self.max_tokens = pack_tokens, max_tokens
        self.padding_id = padding_id
        self.tokens = 0  # scored so far, padding not counted
        self._known: dict[bytes, np.ndarray] = {}  # features of dialogues

    def completion_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        temperature: float = 1.0,
        name: str = "score",
    ) -> list[np.ndarray]:
        """Float32 log-probability of every token of every completion, given its prompt."""
        rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        # The last token of a prompt is not shared: after it comes the first of the completion.
        shareable = [max(len(prompt) - 1, 0) for prompt in prompts]
        asked = Asked(name, LOGPROBS, static={"temperature": temperature})
        scored = self._run(asked, rows, shareable)
        return [
            row[len(p) : len(p) + len(c)]
            for row, p, c in zip(scored, prompts, completions, strict=True)
        ]

    def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], name: str = "choose"
    ) -> np.ndarray:
        """Float32 [prompts, choices]: log-probability of each id as the very next token."""
        ids = replicate(np.asarray(choices, np.int32), self.mesh)
        asked = Asked(name, CHOICES, (ids,))
        found = self._run(asked, prompts, _all_but_last(prompts))
        return np.array(found, np.float32).reshape(len(prompts), len(choices))

    def preference_scores(self, rows: Sequence[Sequence[int]], name: str = "score") -> np.ndarray:
        """Float32 [rows]: raw scores of whole dialogues by a preference model."""
        # The head is applied here, so that one program gives scores and what explains them.
        scores: np.ndarray = (self.preference_features(rows, name) * self._head).sum(axis=-1)
        check_finite(scores, range(len(scores)), READ, name, self.origin)
        return scores

    def preference_features(self, rows: Sequence[Sequence[int]], name: str) -> np.ndarray:
        """Float32 [rows, d]: what the head of a preference model reads of whole dialogues.

        A dialogue is read once: the latest ones are known.
        """
        kept = [without_end(row, self.padding_id) for row in rows]
        names = [np.asarray(row, np.int32).tobytes() for row in kept]
        unread = [i for i, row in enumerate(names) if row not in self._known]
        rows_read = [kept[i] for i in unread]
        read = self._run(Asked(name, FEATURES), rows_read, _all_but_last(rows_read), unread)
        self._known.update(zip((names[i] for i in unread), read, strict=True))
        found = [self._known[row] for row in names]
        while len(self._known) > KNOWN_ROWS:
            del self._known[next(iter(self._known))]
        return np.array(found, np.float32).reshape(len(rows), *self._head.shape)

    @cached_property
    def _head(self) -> np.ndarray:
        """Of a preference model, float32 [d]."""
        kernel: np.ndarray = fetch(self.params()["head"]["kernel"].get_value())
        return kernel

    def logprob_programs(self, name: str, temperature: float = 1.0) -> list[Program]:
        """The programs that ``completion_logprobs`` may call, the longest rows first."""
        return self._programs(Asked(name, LOGPROBS, static={"temperature": temperature}))

    def choice_programs(self, name: str, choices: int) -> list[Program]:
        """The programs that ``choice_logprobs`` may call for so many choices."""
        ids = abstract_replicated((choices,), jnp.int32, self.mesh)
        return self._programs(Asked(name, CHOICES, (ids,)))

    def preference_programs(self, name: str, max_tokens: int | None = None) -> list[Program]:
        """The programs that scores and features call; rows have ``max_tokens`` at most."""
        return self._programs(Asked(name, FEATURES), max_tokens)

    def _programs(self, asked: Asked, max_tokens: int | None = None) -> list[Program]:
        longest = self.max_tokens if max_tokens is None else max_tokens
        if longest is None:
            raise ValueError(f"{asked.name}: rows of any length; set max_tokens")
        whole = [
            self._packed(asked, count, None, width)
            for count in self.batch_sizes
            for width in doublings(longest, self.pack_tokens)
        ]
        shared = doublings(longest, SHARED_TOKENS)
        prefixes = [
            self._prefix(asked, (count, width))
            for count in self.rest_batch_sizes
            for width in shared
        ]
        rests = [
            self._packed(asked, count, before, width)
            for count in self.rest_batch_sizes
            for before in shared
            for width in doublings(max(REST_TOKENS, longest - before // 2), SHARED_TOKENS)
        ]
        return [*whole, *prefixes, *rests]

    def _prefix(self, asked: Asked, shape: tuple[int, int]) -> Program:
        """Reads what packs go on from: so many, of a width."""
        of = self.graph, self.abstract_params, self.size, self.mesh
        return prefix_program(f"{asked.name}, prefix", *of, shape)

    def _packed(self, asked: Asked, count: int, before: int | None, width: int) -> Program:
        """Reads so many packs of a width: of whole rows, or of rests ``before`` tokens wide."""
        name, held = asked.name, None
        if before is not None:
            name = f"{name}, rests"
            held = abstract_prefix(self.graph, self.abstract_params, self.mesh, count, before)
        rows = abstract_batch((count, width), jnp.int32, self.mesh)
        ends = abstract_batch((count, PACK_ROWS), jnp.int32, self.mesh)
        args = (self.graph, self.abstract_params, held, rows, rows, ends, *abstract(asked.more))
        flops = 2.0 * self.size * rows.size
        function, static = asked.reading.function, asked.static
        return Program(name, function, args, static, self.mesh, rows.size, flops)

    def _run(
        self,
        asked: Asked,
        rows: Sequence[Sequence[int]],
        shareable: Sequence[int],
        numbers: Sequence[int] | None = None,
    ) -> list[np.ndarray]:
        """What is read off each row; ``numbers`` are those that errors give the rows."""
        check_longest([len(row) for row in rows], self.max_tokens, asked.name)
        check_filled(rows)
        # Equal rows are read once, and so have equal values, wherever they are packed.
        places: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for i, row in enumerate(rows):
            places[tuple(row)].append(i)
        once = list(places)
        number_of = {row: number for number, row in enumerate(once)}
        shared_at_most = [min(shareable[i] for i in same) for same in places.values()]
        firsts = [same[0] for same in places.values()]
        numbers = firsts if numbers is None else [numbers[i] for i in firsts]
        params = self.params()
        together = groups(once, shared_at_most)
        alone = [group.rows[0] for group in together if not group.shared]
        rests = [
            packed
            for group in together
            if group.shared
            for packed in pack(once, group, REST_TOKENS, PACK_ROWS)
        ]
        # Those of like widths are read side by side, and those of one group one after the other.
        width = lambda tokens: -doubled(tokens, SHARED_TOKENS)
        rests.sort(key=lambda p: (width(len(p.shared)), width(p.tokens), p.shared, p.rows))
        found: dict[int, np.ndarray] = {}
        with progress(len(once), asked.name, "row") as bar:

            def read(packs: Sequence[Packed], prefix: HeldPrefix | None) -> None:
                values = self._read(asked, params, packs, prefix, numbers)
                found.update(values)
                bar.update(len(values))

            whole = pack_whole(once, alone, self.pack_tokens, PACK_ROWS)
            for _, alike in groupby(whole, lambda p: doubled(p.tokens, self.pack_tokens)):
                for packs in _side_by_side(list(alike), self.batch_sizes):
                    read(packs, None)
            shared: list[tuple[int, ...]] = []
            for packs in _side_by_side(rests, self.rest_batch_sizes):
                if shared != (shared := [packed.shared for packed in packs]):
                    prefix = self._read_once(asked, shared, params)
                read(packs, prefix)
        self.tokens += sum(map(len, once))
        return [found[number_of[tuple(row)]] for row in rows]

    def _read_once(
        self, asked: Asked, shared: Sequence[tuple[int, ...]], params: nnx.State
    ) -> HeldPrefix:
        """What packs go on from, and what reads it, when it is needed first."""
        width = doubled(max(map(len, shared)), SHARED_TOKENS)
        batch = pad_rows(shared, width, "right")

        @cache
        def read() -> Prefix[jax.Array]:
            program = self._prefix(asked, batch[0].shape)
            return program(self.graph, params, *put_batch(batch, self.mesh))

        return batch[0], read

    def _read(
        self,
        asked: Asked,
        params: nnx.State,
        packs: Sequence[Packed],
        prefix: HeldPrefix | None,
        numbers: Sequence[int],
    ) -> dict[int, np.ndarray]:
        """What is read off the rows of packs; ``numbers`` are those that errors give the rows."""
        by_token, least = asked.reading.by_token, SHARED_TOKENS if prefix else self.pack_tokens
        batch = laid_out(packs, doubled(max(p.tokens for p in packs), least), PACK_ROWS)
        before = prefix[0].shape[1] if prefix else None
        program = self._packed(asked, len(packs), before, batch[0].shape[1])

        def compute() -> tuple[np.ndarray]:
            on_devices = put_batch(batch, self.mesh)
            held = prefix[1]() if prefix else None
            values = fetch(program(self.graph, params, held, *on_devices, *asked.more))
            of_rows = []  # what is kept of readings by row: places without a row are left out
            for packed, of_pack, segments in zip(packs, values, batch[1], strict=True):
                if by_token:  # a sum is finite if its terms are
                    rests = range(1, len(packed.rows) + 1)
                    found = np.array([of_pack[segments == rest].sum() for rest in rests])
                else:
                    found = of_pack[: len(packed.rows)]
                    of_rows.append(found)
                these = [numbers[row] for row in packed.rows]
                check_finite(found, these, READ, program.name, self.origin)
            return (values if by_token else np.concatenate(of_rows),)

        (values,) = recorded(asked.name, (prefix[0], *batch) if prefix else batch, compute)
        if not by_token:
            return dict(zip((row for packed in packs for row in packed.rows), values, strict=True))
        read: dict[int, np.ndarray] = {}
        for packed, of_pack, ends in zip(packs, values, batch[2], strict=True):
            for r, (row, rest) in enumerate(zip(packed.rows, packed.rests, strict=True)):
                before_rest = np.zeros(len(packed.shared), np.float32)
                end = ends[r] + 1
                read[row] = np.concatenate([before_rest, of_pack[end - len(rest) : end]])
        return read


def _side_by_side(packs: Sequence[Packed], counts: Sequence[int]) -> Iterator[list[Packed]]:
    """As many as the first count, then as the last one, filled up with the first of them."""
    most, least = counts[0], counts[-1]
    at = 0
    while at < len(packs):
        count = most if len(packs) - at >= most else least
        found = list(packs[at : at + count])
        yield found + found[:1] * (count - len(found))
        at += count


def _all_but_last(rows: Sequence[Sequence[int]]) -> list[int]:
    """How much of each row can be shared: what is read is read at its last token."""
    return [max(len(row) - 1, 0) for row in rows]


def without_end(ids: Sequence[int], padding_id: int | None) -> Sequence[int]:
    """A row without the padding at its end; a row of nothing else keeps its first token."""
    end = len(ids)
    while end > 1 and ids[end - 1] == padding_id:
        end -= 1
    return ids[:end]
