"""Learning from comparisons without a preference model: DPO and IPO, on soft labels.

DPO: Rafailov et al. 2023, equation 7, the expectation over the label in place of a choice. IPO:
Azar et al. 2024, equation 17, likewise.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from cai_jax.generation.batching import pad_rows
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_rng
from cai_jax.learning.history import History, Scalars
from cai_jax.learning.logprobs import token_logprobs
from cai_jax.learning.loop import check_loss, train
from cai_jax.learning.losses import Batch, Sums, bradley_terry_loss
from cai_jax.learning.skipping import count, done
from cai_jax.learning.train import (
    Trainable,
    abstract_trainable,
    init_state,
    train_program,
)
from cai_jax.models.blueprint import Model
from cai_jax.models.decoder import Decoder
from cai_jax.parallel import hosts
from cai_jax.parallel.mesh import abstract_batch
from cai_jax.parallel.program import Program
from cai_jax.rl.algorithm import TRAINING, Task, Trained, from_values
from cai_jax.rl.rollout import halvings, holding


@dataclass(frozen=True)
class Pair:
    """Two responses to a prompt.

    Attributes:
      prompt: ids.
      responses: ids of the first and of the second, with their ends.
      target: P(first is better), the label.
      weight: of the pair in the loss.
    """

    prompt: list[int]
    responses: tuple[list[int], list[int]]
    target: float
    weight: float = 1.0

    @property
    def tokens(self) -> int:
        """Of the prompt and the longer response."""
        return len(self.prompt) + max(map(len, self.responses))


@dataclass(frozen=True, kw_only=True)
class Direct(ABC):
    """An algorithm that fits a policy to comparisons; it is its own loss, hashable, so static.

    Attributes:
      beta: nats; the larger, the closer the policy stays to the reference.
      epochs: over the comparisons.
      batch_size: pairs an update.
      micro_batches: parts of a batch that run one by one.
      sequence_length: tokens of a prompt and a response.
    """

    beta: float
    epochs: int
    batch_size: int
    micro_batches: int
    sequence_length: int
    block = "rl.direct"
    steps = 0  # the number of comparisons decides
    shown = ("loss", "agreement")
    exploded: ClassVar[float] = 10.0  # as of ``Skipping``

    @abstractmethod
    def loss(self, margin_b: jax.Array, target_b: jax.Array) -> jax.Array:
        """Loss [b] of the policy's log-odds of the first response over the reference's, nats."""

    def __call__(self, decoder: Decoder, batch: Batch[jax.Array]) -> tuple[jax.Array, Sums]:
        """The loss, summed over pairs, both sides in one forward pass; and sums of metrics.

        Args:
          decoder: the policy.
          batch: for both sides int32 [b, t] ``first``, ``first_segments`` and ``first_mask``, 1 on
            response tokens; float32 [b] ``reference``, the reference's log-odds, ``target``, and
            ``weight``, 0 for rows that only fill the batch.
        """
        both = lambda name: jnp.concatenate([batch[f"first{name}"], batch[f"second{name}"]])
        logprobs_bt = token_logprobs(decoder, both(""), both("_segments"), remat=True).logprobs_bt
        first_b, second_b = jnp.split(jnp.sum(logprobs_bt * both("_mask"), axis=1), 2)
        margin_b = first_b - second_b - batch["reference"]
        weight_b, target_b = batch["weight"], batch["target"]
        total = jnp.sum(self.loss(margin_b, target_b) * weight_b)
        agrees_b = ((margin_b > 0) == (target_b > 0.5)).astype(jnp.float32)
        return total, {
            "loss": total,
            "agreement": jnp.sum(agrees_b * weight_b),
            "margin": jnp.sum(jnp.abs(margin_b) * weight_b),
            "weight": jnp.sum(weight_b),
        }

    def programs(self, task: Task) -> list[Program]:
        """Log-probabilities of the reference, the update, and set-up."""
        blueprint, reference = replace(task.reference, lora=task.lora), task.load(None)
        trainable = abstract_trainable(blueprint, task.mesh)
        return [
            *self._scorer(task, reference).logprob_programs("reference"),
            *(self._update(task, trainable, width) for width in self._widths(task)),
            *task.start_programs(blueprint, reference),
        ]

    def train(self, task: Task, history: History) -> Trained:
        """Fits the policy; log-probabilities of the reference are computed once.

        Raises:
          ValueError: a comparison is longer than ``sequence_length``.
        """
        pairs, reference = self._pairs(task), task.load(None)
        hosts.check_same(
            "rl",
            {"its comparisons": hosts.digest(list(map(astuple, pairs)))},
            "A record differs: see that all hosts read the same workdir and packages.",
        )
        scorer = self._scorer(task, reference)
        margins = reference_margins(scorer, pairs)
        scored = scorer.tokens
        del scorer
        trainable = task.start(replace(task.reference, lora=task.lora), reference)
        del reference
        widths, skipping = self._widths(task), task.open_skipping()
        update = self._update(task, trainable, widths[0])  # it takes narrower batches, too
        state = init_state(trainable.params, task.optimizer)
        batches = partial(self.batches, pairs, margins, task.seed, widths)
        with closing(task.open_saver()) as saver:
            state = train(update, state, trainable.frozen, batches(), history, saver, skipping)
            skipping = replace(skipping, exploded=self.exploded)
            state = check_loss(update, state, trainable.frozen, batches(), history, skipping)
        read = sum(len(pair.prompt) + len(r) for pair in pairs for r in pair.responses)
        return Trained(state.params, scored + self.epochs * read)

    def summary(self, rows: list[Scalars]) -> dict[str, Any]:
        """Loss at both ends, and how the policy ranks the pairs that it learned from last."""
        steps, skipped, rows = len(rows), count(rows), done(rows)
        return {
            "steps": steps,
            "skipped_steps": skipped,
            "first_loss": rows[0]["loss"],
            "last_loss": rows[-1]["loss"],
            "last_agreement": rows[-1]["agreement"],
            "last_margin": rows[-1]["margin"],
        }

    def batches(
        self, pairs: Sequence[Pair], margins: np.ndarray, seed: int, widths: Sequence[int]
    ) -> Iterator[Batch[np.ndarray]]:
        """Batches of host arrays, every epoch in an order of its own.

        Each is as wide as the least of ``widths`` that its rows fit in.
        """
        for epoch in range(self.epochs):
            order = named_rng(seed, "rl", "epoch", epoch).permutation(len(pairs))
            for at in range(0, len(order), self.batch_size):
                chosen = order[at : at + self.batch_size]
                yield self._batch([pairs[i] for i in chosen], margins[chosen], widths)

    def _batch(
        self, pairs: list[Pair], margins: np.ndarray, widths: Sequence[int]
    ) -> Batch[np.ndarray]:
        filler = self.batch_size - len(pairs)
        rows = pairs + pairs[:1] * filler
        pad = lambda values: np.pad(np.asarray(values, np.float32), (0, filler))
        batch = {
            "reference": pad(margins),
            "target": pad([pair.target for pair in pairs]),
            "weight": pad([pair.weight for pair in pairs]),
        }
        width = holding(max(pair.tokens for pair in rows), widths)
        for side, name in enumerate(("first", "second")):
            whole = [[*pair.prompt, *pair.responses[side]] for pair in rows]
            tokens, segments = pad_rows(whole, width, "right")
            starts = np.array([len(pair.prompt) for pair in rows])
            mask = segments * (np.arange(width) >= starts[:, None])
            batch |= {name: tokens, f"{name}_segments": segments, f"{name}_mask": mask}
        return batch

    def _pairs(self, task: Task) -> list[Pair]:
        chat, pairs = task.open_chat(), []
        for row in task.comparisons():
            prompt = chat.prompt_ids(row.prompt)
            responses = (chat.reply_ids(row.first), chat.reply_ids(row.second))
            pair = Pair(prompt, responses, row.target, row.weight)
            if pair.tokens > self.sequence_length:
                raise ValueError(
                    f"rl: comparison {row.id} has {pair.tokens} tokens; set direct.sequence_length "
                    f"(now {self.sequence_length}) to at least that"
                )
            pairs.append(pair)
        return pairs

    def _widths(self, task: Task) -> list[int]:
        return halvings(self.sequence_length, task.bucket_tokens)

    def _scorer(self, task: Task, reference: Model) -> Scorer:
        return Scorer(reference, task.mesh, 2 * self.batch_size, max_tokens=self.sequence_length)

    def _update(self, task: Task, trainable: Trainable, width: int) -> Program:
        b = self.batch_size
        rows = abstract_batch((b, width), jnp.int32, task.mesh)
        numbers = abstract_batch((b,), jnp.float32, task.mesh)
        sides = [
            f"{side}{part}" for side in ("first", "second") for part in ("", "_segments", "_mask")
        ]
        batch = dict.fromkeys(sides, rows) | dict.fromkeys(
            ("reference", "target", "weight"), numbers
        )
        blueprint = replace(task.reference, lora=task.lora)
        program = train_program(
            "update",
            blueprint,
            trainable,
            self,
            task.optimizer,
            self.micro_batches,
            batch,
            task.mesh,
        )
        return replace(program, remedy=TRAINING)


@dataclass(frozen=True, kw_only=True)
class DPO(Direct):
    """Cross-entropy of the label and the policy's implied preference."""

    def loss(self, margin_b: jax.Array, target_b: jax.Array) -> jax.Array:
        """Nats; the implied preference is sigmoid(beta * margin)."""
        return bradley_terry_loss(self.beta * margin_b, target_b)


@dataclass(frozen=True, kw_only=True)
class IPO(Direct):
    """Squared distance of the margin from what the label asks for."""

    exploded: ClassVar[float] = 1000.0  # squared nats of whole responses go far, and come back

    def loss(self, margin_b: jax.Array, target_b: jax.Array) -> jax.Array:
        """Squared nats; a sure label asks for a margin of 1 / (2 beta), an even one for none."""
        return (margin_b - (2 * target_b - 1) / (2 * self.beta)) ** 2


def reference_margins(scorer: Scorer, pairs: Sequence[Pair]) -> np.ndarray:
    """Float64 [pairs]: log-odds of the first response over the second, nats."""
    prompts = [pair.prompt for pair in pairs for _ in pair.responses]
    responses = [response for pair in pairs for response in pair.responses]
    scored = scorer.completion_logprobs(prompts, responses, name="rl: reference")
    sums = np.array([row.sum(dtype=np.float64) for row in scored]).reshape(-1, 2)
    return sums[:, 0] - sums[:, 1]


def direct(kind: type[Direct]) -> Callable[[Mapping[str, Any]], Direct]:
    """Makes an algorithm from the values of a config's block."""
    return lambda values: from_values(kind, values["direct"])
