"""Log-probabilities of given text, and scores of a preference model.

Rows are packed, so that next to nothing is padding. Those that begin alike, as those of one pair
under many principles do, share what they begin with: it is read once, and their rests are packed
behind it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache, cached_property, partial
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
from cai_jax.generation.sharing import Packed, fill, groups, laid_out, pack
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
        asked = [
            (tuple(prompt), tuple(completion))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        # Once each: equal replies have equal log-probabilities, wherever they are packed.
        first: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        for i, each in enumerate(asked):
            first.setdefault(each, i)
        # The last token of a prompt is not shared: after it comes the first of the completion.
        shareable = [max(len(prompt) - 1, 0) for prompt, _ in first]
        rows, numbers = [p + c for p, c in first], list(first.values())
        scored = self._run(name, LOGPROBS, rows, shareable, (), numbers, temperature=temperature)
        found = {
            (p, c): row[len(p) : len(p) + len(c)] for (p, c), row in zip(first, scored, strict=True)
        }
        return [found[each] for each in asked]

    def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], name: str = "choose"
    ) -> np.ndarray:
        """Float32 [prompts, choices]: log-probability of each id as the very next token."""
        ids = replicate(np.asarray(choices, np.int32), self.mesh)
        return np.stack(self._run(name, CHOICES, prompts, _all_but_last(prompts), (ids,)))

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
        first: dict[bytes, int] = {}  # where each dialogue that is not known stands first
        for i, row in enumerate(names):
            if row not in self._known:
                first.setdefault(row, i)
        numbers = list(first.values())
        unread = [kept[i] for i in numbers]
        read = self._run(name, FEATURES, unread, _all_but_last(unread), (), numbers=numbers)
        self._known.update(zip(first, read, strict=True))
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
        return self._programs(name, LOGPROBS, (), temperature=temperature)

    def choice_programs(self, name: str, choices: int) -> list[Program]:
        """The programs that ``choice_logprobs`` may call for so many choices."""
        ids = abstract_replicated((choices,), jnp.int32, self.mesh)
        return self._programs(name, CHOICES, (ids,))

    def preference_programs(self, name: str, max_tokens: int | None = None) -> list[Program]:
        """The programs that scores and features call; rows have ``max_tokens`` at most."""
        return self._programs(name, FEATURES, (), max_tokens)

    def _programs(
        self,
        name: str,
        reading: Reading,
        more: tuple[Any, ...],
        max_tokens: int | None = None,
        **static: Any,
    ) -> list[Program]:
        longest = self.max_tokens if max_tokens is None else max_tokens
        if longest is None:
            raise ValueError(f"{name}: rows of any length; set max_tokens")
        whole = [
            self._packed(name, reading, count, None, width, more, static)
            for count in self.batch_sizes
            for width in doublings(longest, self.pack_tokens)
        ]
        shared = doublings(longest, SHARED_TOKENS)
        prefixes = [
            self._prefix(name, (count, width))
            for count in self.rest_batch_sizes
            for width in shared
        ]
        rests = [
            self._packed(name, reading, count, before, width, more, static)
            for count in self.rest_batch_sizes
            for before in shared
            for width in doublings(max(REST_TOKENS, longest - before // 2), SHARED_TOKENS)
        ]
        return [*whole, *prefixes, *rests]

    def _prefix(self, name: str, shape: tuple[int, int]) -> Program:
        """Reads what packs go on from: so many, of a width."""
        of = self.graph, self.abstract_params, self.size, self.mesh
        return prefix_program(f"{name}, prefix", *of, shape)

    def _packed(
        self,
        name: str,
        reading: Reading,
        count: int,
        before: int | None,
        width: int,
        more: tuple[Any, ...],
        static: Mapping[str, Any],
    ) -> Program:
        """Reads so many packs of a width: of whole rows, or of rests ``before`` tokens wide."""
        held = None
        if before is not None:
            name = f"{name}, rests"
            held = abstract_prefix(self.graph, self.abstract_params, self.mesh, count, before)
        rows = abstract_batch((count, width), jnp.int32, self.mesh)
        ends = abstract_batch((count, PACK_ROWS), jnp.int32, self.mesh)
        args = (self.graph, self.abstract_params, held, rows, rows, ends, *abstract(more))
        flops = 2.0 * self.size * rows.size
        return Program(name, reading.function, args, static, self.mesh, rows.size, flops)

    def _run(
        self,
        name: str,
        reading: Reading,
        rows: Sequence[Sequence[int]],
        shareable: Sequence[int],
        more: tuple[Any, ...],
        numbers: Sequence[int] | None = None,
        **static: Any,
    ) -> list[np.ndarray]:
        """What is read off each row; ``numbers`` are those that errors give the rows."""
        check_longest([len(row) for row in rows], self.max_tokens, name)
        check_filled(rows)
        out: list[np.ndarray] = [np.zeros(0)] * len(rows)
        numbers = range(len(rows)) if numbers is None else numbers
        params = self.params()
        together = groups(rows, shareable)
        alone = [group.rows[0] for group in together if not group.shared]
        whole = fill(rows, alone, self.pack_tokens, PACK_ROWS)
        rests = [
            packed
            for group in together
            if group.shared
            for packed in pack(rows, group, REST_TOKENS, PACK_ROWS)
        ]
        # Those of like widths are read side by side, and those of one group one after the other.
        width = lambda tokens: -doubled(tokens, SHARED_TOKENS)
        rests.sort(key=lambda p: (width(len(p.shared)), width(p.tokens), p.shared, p.rows))
        read = partial(self._read, name, reading, params, more, static, numbers, out)
        with progress(len(rows), name, "row") as bar:
            for _, alike in groupby(whole, lambda p: doubled(p.tokens, self.pack_tokens)):
                for packs in _side_by_side(list(alike), self.batch_sizes):
                    bar.update(read(packs, None))
            shared: list[tuple[int, ...]] = []
            for packs in _side_by_side(rests, self.rest_batch_sizes):
                if shared != (shared := [packed.shared for packed in packs]):
                    prefix = self._read_once(name, shared, params)
                bar.update(read(packs, prefix))
        self.tokens += sum(map(len, rows))
        return out

    def _read_once(
        self, name: str, shared: Sequence[tuple[int, ...]], params: nnx.State
    ) -> tuple[np.ndarray, Callable[[], Prefix[jax.Array]]]:
        """What packs go on from, and what reads it, when it is needed first."""
        width = doubled(max(map(len, shared)), SHARED_TOKENS)
        batch = pad_rows(shared, width, "right")

        @cache
        def read() -> Prefix[jax.Array]:
            program = self._prefix(name, batch[0].shape)
            return program(self.graph, params, *put_batch(batch, self.mesh))

        return batch[0], read

    def _read(
        self,
        name: str,
        reading: Reading,
        params: nnx.State,
        more: tuple[Any, ...],
        static: Mapping[str, Any],
        numbers: Sequence[int],
        out: list[np.ndarray],
        packs: Sequence[Packed],
        prefix: tuple[np.ndarray, Callable[[], Prefix[jax.Array]]] | None,
    ) -> int:
        """Puts what is read off packs where their rows are in ``out``; how many rows these are."""
        least = SHARED_TOKENS if prefix else self.pack_tokens
        batch = laid_out(packs, doubled(max(p.tokens for p in packs), least), PACK_ROWS)
        before = prefix[0].shape[1] if prefix else None
        program = self._packed(name, reading, len(packs), before, batch[0].shape[1], more, static)

        def compute() -> tuple[np.ndarray]:
            on_devices = put_batch(batch, self.mesh)
            held = prefix[1]() if prefix else None
            values = fetch(program(self.graph, params, held, *on_devices, *more))
            for packed, found, segments in zip(packs, values, batch[1], strict=True):
                if reading.by_token:  # a sum is finite if its terms are
                    rests = range(1, len(packed.rows) + 1)
                    found = np.array([found[segments == rest].sum() for rest in rests])
                these = [numbers[row] for row in packed.rows]
                check_finite(found, these, READ, program.name, self.origin)
            return (values,)

        (values,) = recorded(name, (prefix[0], *batch) if prefix else batch, compute)
        for p, packed in enumerate(packs):
            for r, (row, rest) in enumerate(zip(packed.rows, packed.rests, strict=True)):
                end = batch[2][p, r] + 1
                nothing = np.zeros(len(packed.shared), np.float32)
                out[row] = (
                    np.concatenate([nothing, values[p, end - len(rest) : end]])
                    if reading.by_token
                    else values[p, r]
                )
        return len({row for packed in packs for row in packed.rows})


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
