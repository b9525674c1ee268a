"""What an algorithm is: it trains SL-CAI further, on what a run has to learn from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh

from cai_jax.data.readers import Prompt
from cai_jax.learning.history import History, Scalars
from cai_jax.learning.saving import Saver
from cai_jax.learning.skipping import Skipping
from cai_jax.learning.train import Trainable, make_trainable, set_up_programs
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import LoRAConfig
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.prompts.messages import Dialogue
from cai_jax.rl.reward import Objective
from cai_jax.rl.watch import Watch


@dataclass(frozen=True)
class Labelled:
    """Two responses to a prompt, P(first is better), and what that counts in the loss."""

    id: str
    prompt: Dialogue
    first: str
    second: str
    target: float
    weight: float


@dataclass(frozen=True, kw_only=True)
class Task:
    """What there is to learn from, and the devices to do it on.

    Ahead, ``load`` and ``open_reward`` give abstract models, and the rest is not asked for.

    Attributes:
      reference: SL-CAI; it freezes the layers that are not trained. Its low-rank update, if it has
        one, stays apart where that is what is trained, and is merged where all parameters are.
      lora: low-rank updates that are trained; None: all parameters are.
      load: gives the reference, its parameters stored for matmuls in a dtype; None: its own.
      merges: the programs by which ``load`` merges updates.
      open_reward: gives the preference model, and the programs by which it is loaded.
      open_chat: gives the policy's chat format.
      open_watch: gives what looks at the policy while it is trained, given the longest prompt and
        the most responses, and the programs by which it is loaded; None: nothing does.
      prompts: gives the red-team and the helpfulness prompts of training.
      comparisons: gives what the preference model learned from.
      open_saver: gives what saves the states of training.
      open_skipping: gives what is done about updates that are not finite.
      optimizer: of the trained parameters.
      mesh: of training.
      decode_mesh: of sampling.
      stop_ids: tokens that end a response.
      bucket_tokens: batches are as wide as their rows need, down to so many tokens.
      seed: of everything random.
      init_seed: of new parameters.
      offload: keep models in the hosts' memory while they are not used.
    """

    reference: Blueprint
    lora: LoRAConfig | None
    load: Callable[[jnp.dtype | None], Model]
    merges: Callable[[Model], list[Program]]
    open_reward: Callable[[], tuple[Objective, list[Program]]]
    open_watch: Callable[[int, int], tuple[Watch, list[Program]]] | None
    open_chat: Callable[[], ChatFormat]
    prompts: Callable[[], tuple[list[Prompt], list[Prompt]]]
    comparisons: Callable[[], list[Labelled]]
    open_saver: Callable[[], Saver]
    open_skipping: Callable[[], Skipping]
    optimizer: optax.GradientTransformation
    mesh: Mesh
    decode_mesh: Mesh
    stop_ids: tuple[int, ...]
    bucket_tokens: int
    seed: int
    init_seed: int
    offload: bool

    def start(self, blueprint: Blueprint, reference: Model) -> Trainable:
        """What is trained, starting from the reference; under LoRA both share the frozen base."""
        params = reference.params if self.lora else self.load(FLOAT32).params
        return make_trainable(blueprint, params, self.mesh, self.init_seed)

    def start_programs(self, blueprint: Blueprint, reference: Model) -> list[Program]:
        """What loading the reference, ``start`` and the first optimizer state compile."""
        loaded = [reference] if self.lora else [reference, self.load(FLOAT32)]
        return [
            *(program for model in loaded for program in self.merges(model)),
            *set_up_programs(blueprint, self.optimizer, self.mesh, self.init_seed),
        ]


@dataclass(frozen=True)
class Trained:
    """What an algorithm leaves."""

    params: nnx.State  # trained parameters of the decoder
    tokens: int  # read and sampled, padding not counted
    watch: Watch | None = None  # that kept policies


class Algorithm(Protocol):
    """An algorithm with its constants."""

    @property
    def block(self) -> str:
        """Of the config: whose batch it computes."""

    @property
    def steps(self) -> int:
        """Rows of its history; 0 where the data decides."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Metrics that the progress bar shows."""

    def programs(self, task: Task) -> list[Program]:
        """What training compiles, set-up included."""

    def train(self, task: Task, history: History) -> Trained:
        """Trains from the reference.

        Raises:
          FloatingPointError: what a model or an update gives is NaN or infinite.
        """

    def summary(self, rows: list[Scalars]) -> dict[str, Any]:
        """What the history says, in short."""


FLOAT32 = jnp.dtype(jnp.float32)
# What a program's remedy is about; whoever knows the config's fields says which.
SAMPLING, SCORING, TRAINING, OFFLOAD = "sampling", "scoring", "training", "offload"

Kind = TypeVar("Kind")


def from_values(kind: type[Kind], values: Mapping[str, Any]) -> Kind:
    """A dataclass whose fields are among some named values."""
    return kind(**{field.name: values[field.name] for field in fields(kind)})  # type: ignore[arg-type]
