"""Batched sampling: jitted prefill and decode with a key-value cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from tqdm import tqdm

from cai_jax.generation.batching import buckets, check_longest, widths
from cai_jax.generation.finite import check_finite, finite_rows
from cai_jax.generation.journal import recorded
from cai_jax.generation.sampling import Sampling, sample
from cai_jax.models.blueprint import Model
from cai_jax.models.decoder import Decoder, KVCache
from cai_jax.parallel.hosts import fetch
from cai_jax.parallel.mesh import abstract_batch, batch_multiple, put_batch, rounded_up
from cai_jax.parallel.program import Program, abstract


@dataclass(frozen=True)
class Completion:
    """What was sampled after a prompt."""

    ids: list[int]  # the stop token included, if one came
    logprobs: np.ndarray  # float32, of each id under the distribution that was sampled
    finished: bool  # whether a stop token came within the limit


NOTHING = Completion([], np.zeros(0, np.float32), False)
# Step, logits, cache, whether a row is done, tokens and log-probabilities so far.
_Carry = tuple[jax.Array, jax.Array, KVCache, jax.Array, jax.Array, jax.Array]


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
        self.batch_size = rounded_up(batch_size, batch_multiple(mesh))
        self.bucket_tokens, self.max_tokens = bucket_tokens, max_tokens
        self.tokens = 0  # prompt and new tokens so far, padding not counted

    def programs(self, name: str, max_new_tokens: int, sampling: Sampling) -> list[Program]:
        """The programs that ``generate`` may call, the longest prompts first.

        Raises:
          ValueError: prompts have no limit, so there is no list of programs.
        """
        if self.max_tokens is None:
            raise ValueError(f"{name}: prompts of any length; set max_tokens")
        longest = self.max_tokens - max_new_tokens
        return [
            self._program(name, width, max_new_tokens, sampling)
            for width in widths(longest, self.bucket_tokens)
        ]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        keys: Sequence[np.ndarray],
        max_new_tokens: int,
        sampling: Sampling,
        name: str = "generate",
    ) -> list[Completion]:
        """One completion a prompt, in the order of the prompts.

        A row's completion depends on its prompt and key alone, not on the batch around it.

        Args:
          prompts: token ids.
          keys: uint32 [2] each, from ``named_key``.
          max_new_tokens: limit on each completion.
          sampling: how tokens are drawn.
          name: label of the progress bar.

        Raises:
          ValueError: a prompt is empty, or so long that its completion may not fit.
          NotFiniteError: logits are NaN or infinite.
        """
        check_longest([len(row) + max_new_tokens for row in prompts], self.max_tokens, name)
        out: list[Completion] = [NOTHING] * len(prompts)
        with tqdm(total=len(prompts), desc=name, unit="row", leave=False) as bar:
            for bucket in buckets(prompts, self.batch_size, self.bucket_tokens, side="left"):
                rows = bucket.indices + bucket.indices[:1] * (self.batch_size - len(bucket.indices))
                batch = (bucket.tokens_bt, bucket.segments_bt, np.stack([keys[i] for i in rows]))
                program = self._program(name, batch[0].shape[1], max_new_tokens, sampling)
                call = partial(self._call, program, batch, bucket.indices)
                tokens, logprobs, lengths, finished = recorded(name, batch, call)
                for row, i in enumerate(bucket.indices):
                    n = int(lengths[row])
                    ids = [int(token) for token in tokens[row, :n]]
                    out[i] = Completion(ids, logprobs[row, :n], bool(finished[row]))
                    self.tokens += len(prompts[i]) + n
                bar.update(len(bucket.indices))
        return out

    def _call(
        self, program: Program, batch: tuple[np.ndarray, ...], rows: Sequence[int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        on_devices = put_batch(batch, self.mesh)
        *found, finite_b = fetch(program(self.model.graph, self.model.params, *on_devices))
        check_finite(finite_b, rows, "logits", program.name, self.model.origin)
        return tuple(found)

    def _program(
        self, name: str, prompt_tokens: int, max_new_tokens: int, sampling: Sampling
    ) -> Program:
        b = self.batch_size
        rows = abstract_batch((b, prompt_tokens), jnp.int32, self.mesh)
        keys = abstract_batch((b, 2), jnp.uint32, self.mesh)
        return Program(
            name,
            generate_batch,
            (self.model.graph, abstract(self.model.params), rows, rows, keys),
            {"max_new_tokens": max_new_tokens, "sampling": sampling, "stop_ids": self.stop_ids},
            self.mesh,
            tokens=b * max_new_tokens,
            model_flops=2.0 * self.model.size * b * (prompt_tokens + max_new_tokens),
        )


@partial(jax.jit, static_argnames=("graph", "max_new_tokens", "sampling", "stop_ids"))
def generate_batch(
    graph: nnx.GraphDef,
    params: nnx.State,
    tokens_bt: jax.Array,
    segments_bt: jax.Array,
    key_data_b: jax.Array,
    *,
    max_new_tokens: int,
    sampling: Sampling,
    stop_ids: tuple[int, ...],
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array, jax.Array]:
    """Completions of prompts padded on the left.

    Args:
      graph: of a Decoder.
      params: its parameters.
      tokens_bt: int32 prompts, padded on the left.
      segments_bt: int32, 1 on prompt tokens.
      key_data_b: uint32 [b, 2].
      max_new_tokens: steps at most; the loop ends early when all rows have stopped.
      sampling: how tokens are drawn.
      stop_ids: tokens that end a row.

    Returns:
      tokens [b, n], log-probabilities [b, n], lengths [b], finished [b], and whether all logits
      that a row was sampled from were finite [b].
    """
    b, prompt_length = tokens_bt.shape
    keys_b = jax.random.wrap_key_data(key_data_b)
    decoder: Decoder = nnx.merge(graph, params)
    hidden_btd, cache = decoder.prefill(tokens_bt, segments_bt, prompt_length + max_new_tokens)
    stops = jnp.array(stop_ids, jnp.int32)

    def unfinished(carry: _Carry) -> jax.Array:
        n, _, _, done_b, _, _ = carry
        return (n < max_new_tokens) & ~jnp.all(done_b)

    def step(carry: _Carry) -> _Carry:
        n, logits_bv, cache, done_b, tokens_bn, logprobs_bn = carry
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys_b, n)
        token_b, logprob_b = sample(logits_bv, keys, sampling)
        tokens_bn = tokens_bn.at[:, n].set(jnp.where(done_b, 0, token_b))
        logprobs_bn = logprobs_bn.at[:, n].set(jnp.where(done_b, 0.0, logprob_b))
        live_b = ~done_b
        done_b |= jnp.isin(token_b, stops)
        decoder = nnx.merge(graph, params)
        hidden_bd, cache = decoder.decode(token_b, live_b, prompt_length + n, cache)
        return n + 1, decoder.logits(hidden_bd), cache, done_b, tokens_bn, logprobs_bn

    start: _Carry = (
        jnp.zeros((), jnp.int32),
        decoder.logits(hidden_btd[:, -1]),
        cache,
        jnp.zeros((b,), bool),
        jnp.zeros((b, max_new_tokens), jnp.int32),
        jnp.zeros((b, max_new_tokens), jnp.float32),
    )
    _, _, cache, done_b, tokens_bn, logprobs_bn = jax.lax.while_loop(unfinished, step, start)
    lengths_b = jnp.sum(cache.valid_bs[:, prompt_length:], axis=1)
    # A log-probability sums over all logits of its step: it is finite if they are.
    return tokens_bn, logprobs_bn, lengths_b, done_b, finite_rows(logprobs_bn)
