"""What the stages that train on records share: their programs, the loop, packed dialogues."""

import hashlib
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from cai_jax.config import PMTrainConfig, PretrainConfig, SLTrainConfig, WarmUpConfig
from cai_jax.data.records import Part
from cai_jax.data.rows import TrainingDialogue
from cai_jax.learning.history import Scalars, open_history
from cai_jax.learning.loop import LayOut, as_it_is, check_loss, train
from cai_jax.learning.losses import Batch, sft_loss_sum
from cai_jax.learning.optimizers import make_optimizer
from cai_jax.learning.saving import Saver
from cai_jax.learning.skipping import SKIPPED, Skipping, count, done
from cai_jax.learning.train import (
    LossSum,
    Trainable,
    abstract_trainable,
    init_state,
    make_trainable,
    set_up_programs,
    train_program,
)
from cai_jax.models.blueprint import Blueprint
from cai_jax.models.decoder import Decoder
from cai_jax.models.io.checkpoint import CheckpointInfo, base_of, save_checkpoint
from cai_jax.models.io.load import fill_merged, merge_programs
from cai_jax.models.io.sources import ModelSource
from cai_jax.parallel import hosts
from cai_jax.parallel.mesh import abstract_batch
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import Dialogue
from cai_jax.stages.engines import MEMORY_REMEDY, stage_seed, with_remedy
from cai_jax.stages.models import CHECKPOINT, lora_config
from cai_jax.stages.stage import Inputs

log = logging.getLogger("cai_jax")


@dataclass(frozen=True)
class Fit:
    """What training left."""

    params: nnx.State  # trained ones
    history: list[Scalars]  # metrics of every step
    tokens: int  # that were read

    @property
    def metrics(self) -> dict[str, float]:
        """What a stage reports of it."""
        losses = [row["loss"] for row in done(self.history)]
        return {
            "steps": len(self.history),
            "first_loss": losses[0],
            "last_loss": losses[-1],
            "skipped_steps": count(self.history),
        }


@dataclass(frozen=True, kw_only=True)
class Training:
    """A stage's training on records: one definition, to be compiled ahead and to run.

    Attributes:
      name: of the stage.
      block: of the config.
      blueprint: of what is trained.
      loss_sum: what is minimised.
      optimizer: of the trained parameters.
      micro_batches: of a batch.
      batch: abstract, as updates take it.
      mesh: of training.
      seed: of the run.
      warmup_steps: for a warning where training is no longer than that.
      scored_after: whether what is trained is run after, so that it need not be to see if it broke.
      lay_out: makes ``batch`` of what there is to train on.
    """

    name: str
    block: str
    blueprint: Blueprint
    loss_sum: LossSum
    optimizer: optax.GradientTransformation
    micro_batches: int
    batch: Batch
    mesh: Mesh
    seed: int
    warmup_steps: int = 0
    scored_after: bool = False
    lay_out: LayOut = as_it_is

    def programs(self, source: ModelSource) -> list[Program]:
        """Whatever starting from the source and training compile, the update first."""
        trainable = abstract_trainable(self.blueprint, self.mesh)
        set_up = [
            *merge_programs(source, self._decoder()),
            *set_up_programs(self.blueprint, self.optimizer, self.mesh, self._init_seed),
        ]
        return [self.update(trainable), *with_remedy(set_up, MEMORY_REMEDY, f"{self.name}: ")]

    def update(self, trainable: Trainable) -> Program:
        """One step; ``trainable`` may be abstract."""
        program = train_program(
            f"{self.name}: update",
            self.blueprint,
            trainable,
            self.loss_sum,
            self.optimizer,
            self.micro_batches,
            self.batch,
            self.mesh,
        )
        remedy = f"raise config.{self.block}.micro_batches or the number of devices"
        return replace(program, remedy=remedy)

    def start(self, source: ModelSource) -> Trainable:
        """The module before training, its decoder filled from a source."""
        decoder = fill_merged(source, self._decoder())
        return make_trainable(self.blueprint, decoder, self.mesh, self._init_seed)

    def fit(
        self,
        folder: Path,
        trainable: Trainable,
        batches: Callable[[], Iterable[Batch]],
        survey: "Survey",
        saver: Saver,
        skipping: Skipping,
    ) -> Fit:
        """Trains over the batches, writing scalars for TensorBoard into the folder.

        Args:
          folder: of the stage.
          trainable: from ``start``; training gives its buffers up.
          batches: gives host arrays, from which ``lay_out`` makes ``batch``.
          survey: of the same batches.
          saver: of this training's states; it goes on from the last one.
          skipping: of updates that are not finite.

        Raises:
          DivergedError: there were too many, or the loss exploded.
        """
        hosts.check_same(
            self.name,
            {"its batches": survey.digest},
            "A record or its order differs: see that all hosts read the same workdir and packages.",
        )
        if survey.count <= self.warmup_steps:
            log.warning(
                "%s: %d updates, all within config.%s.warmup_steps = %d",
                self.name,
                survey.count,
                self.block,
                self.warmup_steps,
            )
        update, state = self.update(trainable), init_state(trainable.params, self.optimizer)
        opened = open_history(folder, self.name, survey.count, ("loss",))
        with closing(saver), opened as history:
            frozen, lay_out = trainable.frozen, self.lay_out
            state = train(update, state, frozen, batches(), history, saver, skipping, lay_out)
            if not self.scored_after or history.rows[-1].get(SKIPPED):
                state = check_loss(update, state, frozen, batches(), history, skipping, lay_out)
        return Fit(state.params, history.rows, survey.tokens)

    @property
    def _init_seed(self) -> int:
        return stage_seed(self.seed, self.name, "init")

    def _decoder(self) -> nnx.State:
        """Abstract parameters of the decoder before training, low-rank updates left out."""
        plain = replace(self.blueprint, module=Decoder, lora=None)
        dtype = self.blueprint.dtype if self.blueprint.lora else jnp.dtype(jnp.float32)
        return plain.abstract(self.mesh, dtype).params


@dataclass(frozen=True)
class Survey:
    """What there is to train on."""

    count: int  # batches
    rows: int  # of the largest batch, as updates take it
    tokens: int
    digest: str  # of all batches in order


def survey_batches(
    batches: Iterable[Batch],
    tokens_of: Callable[[Batch], int],
    rows_of: Callable[[Batch], int] = lambda batch: len(batch["tokens"]),
) -> Survey:
    """Counts batches without keeping them; training goes over them once more."""
    count, rows, tokens, hashed = 0, 0, 0, hashlib.sha256()
    for batch in batches:
        count, rows, tokens = count + 1, max(rows, rows_of(batch)), tokens + tokens_of(batch)
        hashed.update(hosts.digest(batch).encode("ascii"))
    return Survey(count, rows, tokens, hashed.hexdigest()[:16])


def finetuning(
    inputs: Inputs, settings: WarmUpConfig | SLTrainConfig, source: ModelSource
) -> Training:
    """A stage's supervised finetuning of a decoder on packed dialogues."""
    models, lora = inputs.models, lora_config(settings.lora)
    rows = abstract_batch((settings.batch_size, settings.sequence_length), jnp.int32, models.mesh)
    return Training(
        name=inputs.stage.name,
        block=inputs.stage.name,
        blueprint=models.blueprint(Decoder, source, lora, settings.trained_layers),
        loss_sum=sft_loss_sum,
        optimizer=optimizer_of(settings),
        micro_batches=settings.micro_batches,
        batch={name: rows for name in ("tokens", "segments", "loss_mask")},
        mesh=models.mesh,
        seed=inputs.seed,
        warmup_steps=settings.warmup_steps,
    )


def finetune(
    inputs: Inputs,
    folder: Path,
    settings: WarmUpConfig | SLTrainConfig,
    parts: Sequence[Part],
    named: str,
) -> Fit:
    """Finetunes a model on the records of a stage, and leaves a checkpoint in its folder.

    Args:
      inputs: of the stage.
      folder: of the stage.
      settings: the stage's block of the config.
      parts: the records.
      named: source of the model; empty: the run's.
    """
    source = inputs.models.source(named)
    training = finetuning(inputs, settings, source)
    vocab_size = training.blueprint.config.vocab_size
    batches = partial(packed_batches, training.name, parts, settings, vocab_size, inputs.seed)
    trainable = training.start(source)
    survey = survey_batches(batches(), packed_tokens)
    chat_of = partial(inputs.models.chat_of, source)
    skipping = inputs.skipping(training.block, source.origin.name, chat_of)
    fit = training.fit(folder, trainable, batches, survey, inputs.saver(), skipping)
    base = base_of(named or inputs.models.base_name, folder / CHECKPOINT, inputs.workdir)
    info = CheckpointInfo("policy", base, lora_config(settings.lora))
    save_checkpoint(folder / CHECKPOINT, info, fit.params)
    return fit


def optimizer_of(
    settings: WarmUpConfig | SLTrainConfig | PMTrainConfig,
) -> optax.GradientTransformation:
    """Adam as a training stage asks for it."""
    return make_optimizer(settings.learning_rate, settings.warmup_steps, settings.max_grad_norm)


def fill_rows(batch: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Repeats the first row until the batch has ``rows``, with weight 0 in ``weight``."""
    have = len(next(iter(batch.values())))
    index = np.concatenate([np.arange(have), np.zeros(rows - have, int)])
    filled: dict[str, Any] = {key: value[index] for key, value in batch.items()}
    filled["weight"] = (np.arange(rows) < have).astype(np.float32)
    return filled


def packed_batches(
    name: str,
    parts: Sequence[Part],
    settings: PretrainConfig | WarmUpConfig | SLTrainConfig,
    vocab_size: int,
    seed: int,
) -> Iterator[Batch]:
    """Batches of packed dialogues, as many epochs over the parts as the settings say.

    Rows that only fill the last batch of an epoch have no loss.
    """
    # seqio brings TensorFlow, which takes seconds: only what trains waits for it.
    from cai_jax.data.tasks import CausalLMConverter, batches, mixture

    length, rows = settings.sequence_length, settings.batch_size
    packed = batches(
        mixture(name, parts, ("tokens", "loss_mask"), vocab_size),
        CausalLMConverter(),
        {"tokens": length, "loss_mask": length},
        rows,
        [stage_seed(seed, name, "epoch", e) for e in range(settings.epochs)],
    )
    for batch in packed:
        filled = fill_rows(batch, rows)
        weight = filled.pop("weight")
        filled["loss_mask"] = (filled["loss_mask"] * weight[:, None]).astype(np.int32)
        yield filled


def dialogue_rows(
    chat: ChatFormat, dialogues: Sequence[tuple[str, Dialogue, int]]
) -> list[TrainingDialogue]:
    """Ids and masks of dialogues that end with the assistant, tokenised in one batch.

    Args:
      chat: of the model that is trained.
      dialogues: id, messages, and how many of the assistant's last turns are learned, one or more:
        the mask is 1 on these.
    """
    learned = [
        [i for i, m in enumerate(messages) if m.role == "assistant"][-count:]
        for _, messages, count in dialogues
    ]
    turns = [(d[1], i) for d, some in zip(dialogues, learned, strict=True) for i in some]
    begins = iter(chat.prompts_ids([messages[:i] for messages, i in turns]))
    replies = iter(chat.replies_ids([messages[i].text for messages, i in turns]))
    rows = []
    for (id_, *_), some in zip(dialogues, learned, strict=True):
        spoken = [(next(begins), next(replies)) for _ in some]
        tokens = [*spoken[-1][0], *spoken[-1][1]]
        mask = [0] * len(tokens)
        for begin, reply in spoken:
            mask[len(begin) : len(begin) + len(reply)] = [1] * len(reply)
        rows.append(TrainingDialogue(id_, tuple(tokens), tuple(mask)))
    return rows


def check_lengths(name: str, lengths: Iterable[int], limit: int) -> None:
    """Refuses dialogues that do not fit ``config.NAME.sequence_length``.

    Raises:
      ValueError: one is longer.
    """
    longest = max(lengths, default=0)
    if longest > limit:
        raise ValueError(
            f"{name}: a dialogue has {longest} tokens; set config.{name}.sequence_length (now "
            f"{limit}) to at least that"
        )


def packed_tokens(batch: Batch) -> int:
    """Tokens of a packed batch that are neither padding nor in rows that only fill it."""
    filler = ~batch["loss_mask"].any(axis=1, keepdims=True)
    return int(np.sum((batch["segments"] > 0) & ~filler))
