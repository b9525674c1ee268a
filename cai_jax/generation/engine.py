"""Sampling with continuous batching: a slot whose row has ended takes the next prompt at once.

Prompts are read by one program a width, rows are decoded by one program for all; both have static
shapes. What a row samples depends on its prompt and key alone: each row has its own positions, from
0 on, so that neighbours, their order and the number of slots change nothing. What prompts begin
with in common, as few-shots, is read once where the caller says how long it is: apart from the rest
of a row, whether others have it too or not, so that neighbours change nothing here either.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile

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
    widths,
)
from cai_jax.generation.finite import check_finite
from cai_jax.generation.journal import recorded
from cai_jax.generation.readings import abstract_prefix, prefix_program
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.slots import Slots, abstract_slots, decode, empty, fill
from cai_jax.models.blueprint import Model
from cai_jax.models.decoder import Decoder, Prefix
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import (
    abstract_batch,
    abstract_replicated,
    batch_multiple,
    put_batch,
    replicate,
    rounded_up,
)
from cai_jax.parallel.program import Program, abstract
from cai_jax.progress import progress

FEW_TOKENS = 256  # of prompts that a shard reads at once: enough to compute, and not wait
MANY_TOKENS = 2**13  # the same where many slots are free: more is no faster, and takes memory
LEAST_SHARED = 64  # tokens; reading fewer apart does not pay for another call
KEPT_BYTES = 2**28  # of prefixes, on a device
STREAMED = 2  # tokens a call of ``stream``; one each takes a third longer on CPUs


@dataclass(frozen=True)
class Completion:
    """What was sampled after a prompt."""

    ids: list[int]  # the stop token included, if one came
    logprobs: np.ndarray  # float32, of each id under the distribution that was sampled
    finished: bool  # whether a stop token came within the limit


class Generator:
    """Samples from one decoder.

    Args:
      model: a Decoder at rest; abstract where only ``programs`` are asked for.
      mesh: that it is sharded over.
      stop_ids: tokens that end a completion.
      batch_size: rows decoded together; rounded up to what the mesh divides.
      bucket_tokens: prompts are padded to a multiple of it.
      max_tokens: that a prompt and its completion may have together; None: no limit.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        stop_ids: Sequence[int],
        batch_size: int,
        bucket_tokens: int = 64,
        max_tokens: int | None = None,
    ):
        self.model, self.mesh, self.stop_ids = model, mesh, tuple(stop_ids)
        self.shards = batch_multiple(mesh)
        self.batch_size = rounded_up(batch_size, self.shards)
        self.bucket_tokens, self.max_tokens = bucket_tokens, max_tokens
        self.tokens = 0  # prompt and new tokens so far, padding not counted
        self._prefixes: dict[tuple[int, ...], Prefix[jax.Array]] = {}  # the latest is last
        self._room = KEPT_BYTES * mesh.size

    def programs(
        self, name: str, max_new_tokens: int, sampling: Sampling, shared: bool = False
    ) -> list[Program]:
        """The programs that ``generate`` may call, those of the longest prompts first.

        Args:
          name: of the programs.
          max_new_tokens: limit on each completion.
          sampling: how tokens are drawn.
          shared: whether prompts may have beginnings in common.

        Raises:
          ValueError: prompts have no limit, so there is no list of programs.
        """
        if self.max_tokens is None:
            raise ValueError(f"{name}: prompts of any length; set max_tokens")
        most = self.max_tokens - max_new_tokens
        wide = widths(most, self.bucket_tokens)
        prefixes = doublings(most - 1, LEAST_SHARED) if shared and most > LEAST_SHARED else []
        found = [self.reading(name, prefix) for prefix in prefixes]
        for longest in dict.fromkeys(self.positions(width, max_new_tokens) for width in wide):
            slots = self.slots(longest, max_new_tokens)
            found.append(self.decoding(name, slots, sampling))
            fits = [width for width in wide if width + max_new_tokens <= longest]
            found += [
                self.filling(name, slots, width, prompts)
                for width in fits
                for prompts in dict.fromkeys((self.many(width), self.few(width)))
            ]
            found += [
                self.filling(name, slots, width, prompts, prefix)
                for prefix in prefixes
                for width in doublings(min(fits[0], most) - _least(prefix), self.bucket_tokens)
                for prompts in dict.fromkeys((self.many(width), self.few(width)))
            ]
        return found

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[np.ndarray],
        max_new_tokens: int | Sequence[int],
        sampling: Sampling,
        name: str = "generate",
        shared: Sequence[int] | None = None,
    ) -> list[Completion]:
        """One completion a prompt, in the order of the prompts.

        A row's completion depends on its prompt and key alone, not on the rows around it. A prompt
        that several rows have is read once for those that start together.

        Args:
          prompts: token ids.
          keys: uint32 [2] each, from ``named_key``.
          max_new_tokens: limit on each completion; one for all, or one each.
          sampling: how tokens are drawn.
          name: label of the progress bar.
          shared: tokens of each prompt that others may begin with, too; None: none. They are read
            once for all that have them.

        Raises:
          ValueError: a prompt is empty, has nothing after what it shares, or is so
            long that its completion may not fit.
          NotFiniteError: logits are NaN or infinite.
        """
        limits = np.broadcast_to(np.asarray(max_new_tokens, np.int32), len(prompts))
        check_filled(prompts)
        most = int(limits.max(initial=0))
        check_longest([len(row) + most for row in prompts], self.max_tokens, name)
        if not prompts:
            return []
        shared = shared or [0] * len(prompts)
        if any(not 0 <= n < len(row) for n, row in zip(shared, prompts, strict=True)):
            raise ValueError(f"{name}: a prompt has nothing after what it shares")
        rows = _Rows(self, prompts, shared, keys, limits, sampling, name)
        with progress(len(prompts), name, "row") as bar:
            while len(rows.ended) < len(prompts):
                bar.update(rows.take(recorded(name, rows.identity, rows.advance)))
        found = [rows.ended[i] for i in range(len(prompts))]
        self.tokens += sum(map(len, prompts)) + sum(len(c.ids) for c in found)
        return found

    def prefix(self, ids: tuple[int, ...], name: str) -> Prefix[jax.Array]:
        """What prompts begin with: read, or kept since then.

        The model never changes, so neither does what was read. The latest ones are kept.
        """
        if ids not in self._prefixes:
            width = doubled(len(ids), LEAST_SHARED)
            batch = put_batch(pad_rows([ids] * self.shards, width, "right"), self.mesh)
            program = self.reading(name, width)
            self._prefixes[ids] = program(self.model.graph, self.model.params, *batch)
        found = self._prefixes[ids] = self._prefixes.pop(ids)
        while sum(2 * kept.keys.nbytes for kept in self._prefixes.values()) > self._room:
            if (oldest := next(iter(self._prefixes))) == ids:
                break
            del self._prefixes[oldest]
        return found

    def reading(self, name: str, width: int) -> Program:
        """Reads what prompts begin with, of a width: once a shard."""
        of = self.model.graph, abstract(self.model.params), self.model.size, self.mesh
        return prefix_program(f"{name}, shared", *of, (self.shards, width))

    def stream(
        self, prompt: Sequence[int], key: np.ndarray, max_new_tokens: int, sampling: Sampling
    ) -> Iterator[int]:
        """The tokens that ``generate`` gives for one prompt, as they are sampled.

        The row stops at a limit of a few tokens, and goes on under a higher one: the programs are
        those of ``generate``. They are compiled for prompts of few widths, each twice the one
        before. Whoever stops iterating stops the sampling.

        Args:
          prompt: token ids.
          key: uint32 [2], from ``named_key``.
          max_new_tokens: limit on the completion.
          sampling: how tokens are drawn.

        Raises:
          ValueError: the prompt is empty, or so long that its completion may not fit.
          NotFiniteError: logits are NaN or infinite.
        """
        name, graph, params = "stream", self.model.graph, self.model.params
        check_filled([prompt])
        check_longest([len(prompt) + max_new_tokens], self.max_tokens, name)
        longest = self.positions(rounded_up(len(prompt), self.bucket_tokens), max_new_tokens)
        like, width = self.slots(longest, max_new_tokens), longest - max_new_tokens
        keys = np.zeros((self.batch_size, 2), np.uint32)
        source, limits = np.full(self.batch_size, -1, np.int32), np.zeros(self.batch_size, np.int32)
        source[0], keys[0], limits[0] = 0, key, min(STREAMED, max_new_tokens)
        rows = pad_rows([prompt, *[(0,)] * (self.shards - 1)], width, "right")
        batch = put_batch((*rows, source, keys, limits), self.mesh)
        fill = self.filling(name, like, width, self.shards)
        decode = self.decoding(name, like, sampling)
        still = replicate(np.zeros((), np.int32), self.mesh)
        slots, done, ends = fill(graph, params, empty(like), *batch), 0, False
        self.tokens += len(prompt)
        while not ends:
            slots = decode(graph, params, slots, still)
            values = fetch((slots.sampled_b, slots.tokens_bn, slots.logprobs_bn))
            sampled, tokens, logprobs = (value[0] for value in values)
            check_finite(logprobs[None, :sampled], [0], "logits", name, self.model.origin)
            new, done = tokens[done:sampled].tolist(), int(sampled)
            self.tokens += len(new)
            yield from new
            ends = done == max_new_tokens or new[-1] in self.stop_ids
            limits[0] = min(done + STREAMED, max_new_tokens)
            live, limit = put_batch((source == 0, limits), self.mesh)
            slots = slots._replace(live_b=live, limit_b=limit)

    def filling(
        self,
        name: str,
        slots: Slots[jax.ShapeDtypeStruct],
        width: int,
        prompts: int,
        prefix: int = 0,
    ) -> Program:
        """Reads so many prompts of a width into slots, behind what was read of them, of a width."""
        params = abstract(self.model.params)
        before = (
            (abstract_prefix(self.model.graph, params, self.mesh, self.shards, prefix),)
            if prefix
            else ()
        )
        rows = abstract_batch((prompts, width), jnp.int32, self.mesh)
        source = abstract_batch((self.batch_size,), jnp.int32, self.mesh)
        return Program(
            f"{name}, prompts",
            fill,
            (
                *(self.model.graph, params, slots),
                *(rows, rows, source, slots.keys_b2, slots.limit_b, *before),
            ),
            {"shards": self.shards},
            self.mesh,
            tokens=prompts * width,
            model_flops=2.0 * self.model.size * prompts * width,
        )

    def decoding(
        self, name: str, slots: Slots[jax.ShapeDtypeStruct], sampling: Sampling
    ) -> Program:
        """Decodes the rows of slots, all of their tokens if it is called once."""
        tokens = slots.tokens_bn.size
        return Program(
            name,
            decode,
            (
                *(self.model.graph, abstract(self.model.params), slots),
                abstract_replicated((), jnp.int32, self.mesh),
            ),
            {"sampling": sampling, "stop_ids": self.stop_ids},
            self.mesh,
            tokens=tokens,
            model_flops=2.0 * self.model.size * tokens,
        )

    def slots(self, positions: int, max_new_tokens: int) -> Slots[jax.ShapeDtypeStruct]:
        """Shapes of slots with caches of so many positions."""
        decoder: Decoder = nnx.merge(self.model.graph, self.model.params)
        return abstract_slots(
            decoder.config, decoder.dtype, self.mesh, self.batch_size, positions, max_new_tokens
        )

    def positions(self, width: int, max_new_tokens: int) -> int:
        """Of a cache for prompts up to a width: one of few sizes, so that few programs compile."""
        longest = doubled(width, self.bucket_tokens)
        if self.max_tokens is not None:
            longest = min(longest, widths(self.max_tokens - max_new_tokens, self.bucket_tokens)[0])
        return longest + max_new_tokens

    def few(self, width: int) -> int:
        """Prompts of a width that are read at once where few slots are free."""
        return self._rows_of(width, FEW_TOKENS)

    def many(self, width: int) -> int:
        """Prompts of a width that are read at once at most."""
        return self._rows_of(width, MANY_TOKENS)

    def _rows_of(self, width: int, tokens: int) -> int:
        return self.shards * max(1, min(tokens // width, self.batch_size // self.shards))


class _Rows:
    """The rows of one call: those that wait, those in slots, and those that have ended."""

    def __init__(
        self,
        generator: Generator,
        prompts: Sequence[Sequence[int]],
        shared: Sequence[int],
        keys: Sequence[np.ndarray],
        limits: np.ndarray,
        sampling: Sampling,
        name: str,
    ):
        self.of, self.prompts, self.keys = generator, [tuple(row) for row in prompts], keys
        self.prefixes = [
            row[: n if n >= LEAST_SHARED else 0]
            for row, n in zip(self.prompts, shared, strict=True)
        ]
        self.limits, self.sampling, self.name = limits, sampling, name
        self.ended: dict[int, Completion] = {}
        self.identity = (_identity(self.prompts, keys), limits)
        self._waiting: deque[int] | None = None  # None: not started
        self._device: Slots[jax.Array]
        self._held = np.full(generator.batch_size, -1)  # the row of each slot; -1: free

    def take(self, values: Sequence[np.ndarray]) -> int:
        """Keeps rows that have ended, as ``advance`` gave them; how many."""
        rows, lengths, tokens, logprobs = values
        for row, length, ids, each in zip(rows, lengths, tokens, logprobs, strict=True):
            found = ids[:length].tolist()
            ends = found[-1] in self.of.stop_ids
            self.ended[int(row)] = Completion(found, each[:length], ends)
        return len(rows)

    def advance(self) -> tuple[np.ndarray, ...]:
        """Decodes until some rows have ended: their numbers, lengths, tokens, log-probabilities."""
        if self._waiting is None:
            self._start()
        params = self.of.model.params
        while self._waiting and (self._held < 0).any():
            program, batch, prefix = self._next_prompts()
            before = (self.of.prefix(prefix, self.name),) if prefix else ()
            with_rows = (*put_batch(batch, self.of.mesh), *before)
            self._device = program(self.of.model.graph, params, self._device, *with_rows)
        still = replicate(np.asarray(self._still(), np.int32), self.of.mesh)
        self._device = self._decoding(self.of.model.graph, params, self._device, still)
        slots = self._device
        live, lengths, tokens, logprobs = fetch(
            (slots.live_b, slots.sampled_b, slots.tokens_bn, slots.logprobs_bn)
        )
        ended = np.flatnonzero((self._held >= 0) & ~live)
        rows, self._held[ended] = self._held[ended], -1
        # A log-probability sums over all logits of its step: it is finite if they are.
        sampled = np.where(np.arange(logprobs.shape[1]) < lengths[:, None], logprobs, 0.0)
        check_finite(sampled[ended], rows.tolist(), "logits", self.name, self.of.model.origin)
        return rows, lengths[ended], tokens[ended], logprobs[ended]

    def _start(self) -> None:
        """Queues what has not ended, the longest first; what is equal is side by side."""
        left = [i for i in range(len(self.prompts)) if i not in self.ended]
        prefix = lambda i: (-len(self.prefixes[i]), self.prefixes[i])
        order = lambda i: (*prefix(i), -self._width(i), self.prompts[i], i)
        self._waiting = deque(sorted(left, key=order))
        # By all rows, ended ones too, so that a stage that was cut off goes on with equal shapes.
        widest = rounded_up(max(map(len, self.prompts)), self.of.bucket_tokens)
        most = int(self.limits.max())
        like = self.of.slots(self.of.positions(widest, most), most)
        self._decoding = self.of.decoding(self.name, like, self.sampling)
        self._like, self._device = like, empty(like)

    def _next_prompts(self) -> tuple[Program, tuple[np.ndarray, ...], tuple[int, ...]]:
        """What reads the next prompts of one width and beginning, its batch, and the beginning."""
        of, waiting = self.of, self._waiting
        assert waiting
        width, prefix = self._width(waiting[0]), self.prefixes[waiting[0]]
        alike = lambda row: (self._width(row), self.prefixes[row]) == (width, prefix)
        free = np.flatnonzero(self._held < 0)
        wanted = {self.prompts[row] for row in islice(takewhile(alike, waiting), len(free))}
        # As many as may be only where most of them would not be padding.
        few, many = of.few(width), of.many(width)
        prompts = many if len(wanted) > max(few, many // 2) else few
        source = np.full(of.batch_size, -1, np.int32)
        keys, limits = np.zeros((of.batch_size, 2), np.uint32), np.zeros_like(source)
        read: list[dict[tuple[int, ...], int]] = [{} for _ in range(of.shards)]
        for slot in free:
            if not waiting or not alike(waiting[0]):
                break
            here, prompt = read[slot * of.shards // of.batch_size], self.prompts[waiting[0]]
            if prompt not in here and len(here) == prompts // of.shards:
                continue
            row = waiting.popleft()
            source[slot] = here.setdefault(prompt, len(here))
            keys[slot], limits[slot], self._held[slot] = self.keys[row], self.limits[row], row
        before = doubled(len(prefix), LEAST_SHARED) if prefix else 0
        program = of.filling(self.name, self._like, width, prompts, before)
        filled = [
            prompt[len(prefix) :]
            for here in read
            for prompt in [*here, *[(*prefix, 0)] * (prompts // of.shards - len(here))]
        ]
        return program, (*pad_rows(filled, width, "right"), source, keys, limits), prefix

    def _still(self) -> int:
        """How many rows may go on while free slots are filled again.

        A quarter of the slots waits at most, and no longer than for prompts that are read at once.
        """
        if not self._waiting:
            return 0
        few = self.of.few(self._width(self._waiting[0]))
        return self.of.batch_size - max(1, min(few, self.of.batch_size // 4))

    def _width(self, row: int) -> int:
        """Of what is read of a row behind its prefix; of few sizes where there is one."""
        rest = len(self.prompts[row]) - len(self.prefixes[row])
        wide = doubled if self.prefixes[row] else rounded_up
        return wide(rest, self.of.bucket_tokens)


def _least(prefix: int) -> int:
    """Tokens that a beginning which is read in such a width has at least."""
    return max(LEAST_SHARED, prefix // 2 + 1)


def _identity(prompts: Sequence[tuple[int, ...]], keys: Sequence[np.ndarray]) -> np.ndarray:
    """A hash of prompts and keys, by which a journal knows the call again."""
    hashed = hashlib.sha256()
    for prompt, key in zip(prompts, keys, strict=True):
        hashed.update(np.asarray([len(prompt), *prompt], np.int64).tobytes())
        hashed.update(np.asarray(key, np.uint32).tobytes())
    return np.frombuffer(hashed.digest(), np.uint8)
