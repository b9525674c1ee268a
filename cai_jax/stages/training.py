"""What the stages that train on records share: the loop, and packed dialogues."""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax
from clu import metric_writers
from flax import nnx
from tqdm import tqdm

from cai_jax.config import PMTrainConfig, PretrainConfig, SLTrainConfig
from cai_jax.data.tasks import CausalLMConverter, Part, batches, mixture
from cai_jax.learning.losses import Batch
from cai_jax.learning.train import (
    LossSum,
    Trainable,
    TrainState,
    init_state,
    make_optimizer,
    train_step,
)
from cai_jax.models.io.load import forget_pretrained
from cai_jax.parallel import hosts
from cai_jax.parallel.mesh import put_batch
from cai_jax.stages.run import Run

log = logging.getLogger("cai_jax")


def train(
    run: Run,
    folder: Path,
    name: str,
    trainable: Trainable,
    loss_sum: LossSum,
    optimizer: optax.GradientTransformation,
    data: Iterable[Batch],
    micro_batches: int,
    tokens_of: Callable[[Batch], int],
) -> tuple[nnx.State, list[dict[str, float]], int]:
    """Trains over the batches, writing scalars for TensorBoard.

    Returns:
      The trained parameters, the metrics of every step, and the number of tokens read.
    """
    forget_pretrained()
    data = list(data)
    hosts.check_same(
        name,
        {"its batches": hosts.digest(data)},
        "A record or its order differs: see that all hosts read the same workdir and packages.",
    )
    if len(data) <= (warmup := getattr(run.config, name).warmup_steps):
        log.warning(
            "%s: %d updates, all within config.%s.warmup_steps = %d", name, len(data), name, warmup
        )
    state: TrainState = init_state(trainable.params, optimizer)
    history, tokens = [], 0
    writer = metric_writers.create_default_writer(
        str(folder / "tensorboard"), just_logging=not hosts.is_main(), asynchronous=False
    )
    with tqdm(data, desc=name, unit="step", leave=False) as bar:
        for step, batch in enumerate(bar):
            with jax.set_mesh(run.mesh):
                state, metrics = train_step(
                    state,
                    trainable.frozen,
                    put_batch(batch, run.mesh),
                    loss_sum=loss_sum,
                    graph=trainable.graph,
                    optimizer=optimizer,
                    micro_batches=micro_batches,
                )
            scalars = {k: float(v) for k, v in hosts.fetch(metrics).items()}
            check_finite(scalars, name, step)
            history.append(scalars)
            tokens += tokens_of(batch)
            writer.write_scalars(step, scalars)
            bar.set_postfix(loss=f"{scalars['loss']:.3f}", refresh=False)
    writer.close()
    return state.params, history, tokens


def optimizer_of(settings: SLTrainConfig | PMTrainConfig) -> optax.GradientTransformation:
    """Adam as a training stage asks for it."""
    return make_optimizer(settings.learning_rate, settings.warmup_steps, settings.max_grad_norm)


def check_finite(scalars: dict[str, float], name: str, step: int) -> dict[str, float]:
    """Stops a run that diverged.

    Raises:
      FloatingPointError: a metric is NaN or infinite.
    """
    for key, value in scalars.items():
        if not np.isfinite(value):
            raise FloatingPointError(
                f"{name}: {key} is {value} at step {step}; lower config.{name}.learning_rate"
            )
    return scalars


def fill_rows(batch: dict[str, np.ndarray], rows: int) -> dict[str, np.ndarray]:
    """Repeats the first row until the batch has ``rows``, with weight 0 in ``weight``."""
    have = len(next(iter(batch.values())))
    index = np.concatenate([np.arange(have), np.zeros(rows - have, int)])
    filled: dict[str, Any] = {key: value[index] for key, value in batch.items()}
    filled["weight"] = (np.arange(rows) < have).astype(np.float32)
    return filled


def packed_batches(
    run: Run,
    name: str,
    parts: Sequence[Part],
    settings: PretrainConfig | SLTrainConfig,
    vocab_size: int,
) -> Iterator[Batch]:
    """Batches of packed dialogues, ``config.NAME.epochs`` times over the parts.

    Rows that only fill the last batch of an epoch have no loss.
    """
    length, rows = settings.sequence_length, settings.batch_size
    packed = batches(
        mixture(name, parts, ("tokens", "loss_mask"), vocab_size),
        CausalLMConverter(),
        {"tokens": length, "loss_mask": length},
        rows,
        [run.stage_seed(name, "epoch", e) for e in range(settings.epochs)],
    )
    for batch in packed:
        filled = fill_rows(batch, rows)
        weight = filled.pop("weight")
        filled["loss_mask"] = (filled["loss_mask"] * weight[:, None]).astype(np.int32)
        yield filled


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
