"""Log-probabilities of given text, and scores of a preference model."""

from collections.abc import Callable, Sequence
from functools import partial

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from cai_jax.generation.batching import buckets, check_longest
from cai_jax.learning.logprobs import token_logprobs
from cai_jax.models.heads import last_token
from cai_jax.models.io.load import Model
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import batch_multiple, put_batch, waiting


class Scorer:
    """Runs one model over rows of any length, batched and bucketed.

    Args:
      model: at rest; a Decoder, or a PreferenceModel for ``preference_scores``.
      mesh: where it lives.
      batch_size: rows run together; rounded up to what the mesh divides.
      bucket_multiple: rows are padded to a multiple of it.
      longest: tokens that a row may have; 0: no limit.
      offload: keep the parameters in the hosts' memory between calls.
    """

    def __init__(
        self,
        model: Model,
        mesh: Mesh,
        batch_size: int,
        bucket_multiple: int = 32,
        longest: int = 0,
        offload: bool = False,
    ):
        ways = batch_multiple(mesh)
        self.graph, self.params, self.mesh = model.graph, waiting(model.params, offload), mesh
        self.batch_size = -(-batch_size // ways) * ways
        self.bucket_multiple, self.longest = bucket_multiple, longest
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
        step = partial(row_logprobs, temperature=temperature)
        scored = self._run(step, rows, name)
        return [
            row[len(p) : len(p) + len(c)]
            for row, p, c in zip(scored, prompts, completions, strict=True)
        ]

    def choice_logprobs(
        self, prompts: Sequence[Sequence[int]], choices: Sequence[int], name: str = "choose"
    ) -> np.ndarray:
        """Float32 [prompts, choices]: log-probability of each id as the very next token."""
        step = partial(next_logprobs, choices=tuple(choices))
        return np.stack(self._run(step, prompts, name))

    def preference_scores(self, rows: Sequence[Sequence[int]], name: str = "score") -> np.ndarray:
        """Float32 [rows]: raw scores of whole dialogues by a preference model."""
        return np.array(self._run(row_scores, rows, name), np.float32)

    def _run(self, step: Callable, rows: Sequence[Sequence[int]], name: str) -> list[np.ndarray]:
        check_longest([len(row) for row in rows], self.longest, name)
        out: list[np.ndarray | None] = [None] * len(rows)
        params = self.params()
        with tqdm(total=len(rows), desc=name, unit="row", leave=False) as bar:
            for bucket in buckets(rows, self.batch_size, self.bucket_multiple, side="right"):
                batch = put_batch((bucket.tokens_bt, bucket.segments_bt), self.mesh)
                with jax.set_mesh(self.mesh):
                    values = fetch(step(self.graph, params, *batch))
                for row, i in enumerate(bucket.indices):
                    out[i] = values[row]
                    self.tokens += len(rows[i])
                bar.update(len(bucket.indices))
        return out


@partial(jax.jit, static_argnames=("graph", "temperature"))
def row_logprobs(
    graph: nnx.GraphDef,
    params: nnx.State,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    *,
    temperature: float,
) -> jax.Array:
    """Float32 [b, t]: log-probability of every token."""
    return token_logprobs(nnx.merge(graph, params), tokens_bt, segments_bt, temperature).logprobs_bt


@partial(jax.jit, static_argnames=("graph", "choices"))
def next_logprobs(
    graph: nnx.GraphDef,
    params: nnx.State,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    *,
    choices: tuple[int, ...],
) -> jax.Array:
    """Float32 [b, choices]: log-probability of each id after the last real token."""
    decoder = nnx.merge(graph, params)
    hidden_bd = last_token(decoder.hidden(tokens_bt, segments_bt), segments_bt)
    return jax.nn.log_softmax(decoder.logits(hidden_bd), axis=-1)[:, np.array(choices)]


@partial(jax.jit, static_argnames=("graph",))
def row_scores(
    graph: nnx.GraphDef, params: nnx.State, tokens_bt: jax.Array, segments_bt: jax.Array
) -> jax.Array:
    """Float32 [b]: scores of a preference model."""
    return nnx.merge(graph, params)(tokens_bt, segments_bt)
