"""Log-probabilities of given text, and scores of a preference model."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from cai_jax.generation.batching import buckets, check_longest, widths
from cai_jax.generation.finite import check_finite, finite_rows
from cai_jax.generation.journal import recorded
from cai_jax.learning.logprobs import token_logprobs
from cai_jax.models.blueprint import Model
from cai_jax.models.heads import last_token
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


class Scorer:
    """Runs one model over rows of any length, batched and bucketed.

    Every method that runs it raises NotFiniteError where what it gives is NaN or infinite.

    Args:
      model: at rest; a Decoder, or a PreferenceModel for ``preference_scores``. Abstract where
        only programs are asked for.
      mesh: that it is sharded over.
      batch_size: rows run together; rounded up to what the mesh divides.
      bucket_tokens: rows are padded to a multiple of it.
      max_tokens: that a row may have; None: no limit.
      offload: keep the parameters in the hosts' memory between calls.
      padding_id: tokens that ``preference_scores`` leaves out at the end of a row; None: none.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        batch_size: int,
        bucket_tokens: int = 32,
        max_tokens: int | None = None,
        offload: bool = False,
        padding_id: int | None = None,
    ):
        self.graph, self.mesh, self.origin = model.graph, mesh, model.origin
        self.abstract_params, self.size = abstract(model.params), model.size
        self.params = offload_to_host(model.params, offload)
        self.batch_size = rounded_up(batch_size, batch_multiple(mesh))
        self.bucket_tokens, self.max_tokens = bucket_tokens, max_tokens
        self.padding_id = padding_id
        self.tokens = 0  # scored so far, padding not counted

    def completion_logprobs(
        self,
        prompts: Sequence[Sequence[int]],
        completions: Sequence[Sequence[int]],
        temperature: float = 1.0,
        name: str = "score",
    ) -> list[np.ndarray]:
        """Float32 log-probability of every token of every completion, given its prompt."""
        rows = [[*p, *c] for p, c in zip(prompts, completions, strict=True)]
        scored = self._run(name, row_logprobs, rows, (), temperature=temperature)
        return [
            row[len(p) : len(p) + len(c)]
            for row, p, c in zip(scored, prompts, completions, strict=True)
        ]

    def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], name: str = "choose"
    ) -> np.ndarray:
        """Float32 [prompts, choices]: log-probability of each id as the very next token."""
        ids = replicate(np.asarray(choices, np.int32), self.mesh)
        return np.stack(self._run(name, next_logprobs, prompts, (ids,)))

    def preference_scores(self, rows: Sequence[Sequence[int]], name: str = "score") -> np.ndarray:
        """Float32 [rows]: raw scores of whole dialogues by a preference model."""
        rows = [without_end(row, self.padding_id) for row in rows]
        return np.array(self._run(name, row_scores, rows, ()), np.float32)

    def preference_features(self, rows: Sequence[Sequence[int]], name: str) -> np.ndarray:
        """Float32 [rows, d]: what the head of a preference model reads of whole dialogues."""
        rows = [without_end(row, self.padding_id) for row in rows]
        return np.stack(self._run(name, row_features, rows, ()))

    def logprob_programs(self, name: str, temperature: float = 1.0) -> list[Program]:
        """The programs that ``completion_logprobs`` may call, the longest rows first."""
        return self._programs(name, row_logprobs, (), temperature=temperature)

    def choice_programs(self, name: str, choices: int) -> list[Program]:
        """The programs that ``choice_logprobs`` may call for so many choices."""
        ids = abstract_replicated((choices,), jnp.int32, self.mesh)
        return self._programs(name, next_logprobs, (ids,))

    def preference_programs(self, name: str, max_tokens: int | None = None) -> list[Program]:
        """The programs that ``preference_scores`` may call; rows have ``max_tokens`` at most."""
        return self._programs(name, row_scores, (), max_tokens)

    def feature_programs(self, name: str, max_tokens: int | None = None) -> list[Program]:
        """The programs that ``preference_features`` may call; arguments as above."""
        return self._programs(name, row_features, (), max_tokens)

    def _programs(
        self,
        name: str,
        function: jax.stages.Wrapped,
        more: tuple[Any, ...],
        max_tokens: int | None = None,
        **static: Any,
    ) -> list[Program]:
        longest = self.max_tokens if max_tokens is None else max_tokens
        if longest is None:
            raise ValueError(f"{name}: rows of any length; set max_tokens")
        return [
            self._program(name, function, width, more, static)
            for width in widths(longest, self.bucket_tokens)
        ]

    def _program(
        self,
        name: str,
        function: jax.stages.Wrapped,
        width: int,
        more: tuple[Any, ...],
        static: Mapping[str, Any],
    ) -> Program:
        rows = abstract_batch((self.batch_size, width), jnp.int32, self.mesh)
        args = (self.graph, self.abstract_params, rows, rows, *abstract(more))
        tokens = self.batch_size * width
        flops = 2.0 * self.size * tokens
        return Program(name, function, args, static, self.mesh, tokens, flops)

    def _call(
        self,
        program: Program,
        params: nnx.State,
        batch: tuple[np.ndarray, ...],
        rows: Sequence[int],
        more: Any,
    ) -> tuple[np.ndarray]:
        on_devices = put_batch(batch, self.mesh)
        values, finite_b = fetch(program(self.graph, params, *on_devices, *more))
        check_finite(finite_b, rows, "log-probabilities or scores", program.name, self.origin)
        return (values,)

    def _run(
        self,
        name: str,
        function: jax.stages.Wrapped,
        rows: Sequence[Sequence[int]],
        more: tuple[Any, ...],
        **static: Any,
    ) -> list[np.ndarray]:
        check_longest([len(row) for row in rows], self.max_tokens, name)
        out: list[np.ndarray] = [np.zeros(0)] * len(rows)
        params = self.params()
        with tqdm(total=len(rows), desc=name, unit="row", leave=False) as bar:
            for bucket in buckets(rows, self.batch_size, self.bucket_tokens, side="right"):
                batch = (bucket.tokens_bt, bucket.segments_bt)
                program = self._program(name, function, bucket.tokens_bt.shape[1], more, static)
                call = partial(self._call, program, params, batch, bucket.indices, more)
                (values,) = recorded(name, batch, call)
                for row, i in enumerate(bucket.indices):
                    out[i] = values[row]
                    self.tokens += len(rows[i])
                bar.update(len(bucket.indices))
        return out


def without_end(ids: Sequence[int], padding_id: int | None) -> Sequence[int]:
    """A row without the padding at its end; a row of nothing else keeps its first token."""
    end = len(ids)
    while end > 1 and ids[end - 1] == padding_id:
        end -= 1
    return ids[:end]


@partial(jax.jit, static_argnames=("graph", "temperature"))
def row_logprobs(
    graph: nnx.GraphDef,
    params: nnx.State,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    *,
    temperature: float,
) -> tuple[jax.Array, jax.Array]:
    """Float32 [b, t]: log-probability of every token; and whether those of a row are finite [b]."""
    decoder = nnx.merge(graph, params)
    logprobs_bt = token_logprobs(decoder, tokens_bt, segments_bt, temperature).logprobs_bt
    return logprobs_bt, finite_rows(logprobs_bt)


@partial(jax.jit, static_argnames=("graph",))
def next_logprobs(
    graph: nnx.GraphDef,
    params: nnx.State,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    choices_c: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Float32 [b, c]: log-probability of each id of ``choices_c`` after the last real token.

    And whether those of a row are finite [b].
    """
    decoder = nnx.merge(graph, params)
    hidden_bd = last_token(decoder.hidden(tokens_bt, segments_bt), segments_bt)
    logprobs_bc = jax.nn.log_softmax(decoder.logits(hidden_bd), axis=-1)[:, choices_c]
    return logprobs_bc, finite_rows(logprobs_bc)


@partial(jax.jit, static_argnames=("graph",))
def row_scores(
    graph: nnx.GraphDef, params: nnx.State, tokens_bt: jax.Array, segments_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Float32 [b]: scores of a preference model; and whether each is finite [b]."""
    scores_b = nnx.merge(graph, params)(tokens_bt, segments_bt)
    return scores_b, finite_rows(scores_b)


@partial(jax.jit, static_argnames=("graph",))
def row_features(
    graph: nnx.GraphDef, params: nnx.State, tokens_bt: jax.Array, segments_bt: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Float32 [b, d]: what the head of a preference model reads; and whether it is finite [b]."""
    features_bd = nnx.merge(graph, params).features(tokens_bt, segments_bt).astype(jnp.float32)
    return features_bd, finite_rows(features_bd)
