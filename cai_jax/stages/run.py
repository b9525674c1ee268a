"""A run: its config, its workdir, and what its stages share; and what a stage is."""

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cai_jax.config import Config, ConfigError
from cai_jax.constitution.schema import Constitution, load_constitution
from cai_jax.data.readers import (
    LabelledPair,
    Prompt,
    file_sha256,
    is_held_out,
    read_pairs,
    read_prompts,
)
from cai_jax.evaluation.oracle import Oracle
from cai_jax.generation.engine import Completion, Generator
from cai_jax.generation.sampling import Sampling
from cai_jax.generation.scoring import Scorer
from cai_jax.keys import named_key
from cai_jax.models.config import Execution, LoRAConfig
from cai_jax.models.io.load import Model, load_merged, load_policy
from cai_jax.models.io.sources import ModelSource, cache_folder, resolve
from cai_jax.parallel.devices import attention_kernel, compute_dtype
from cai_jax.parallel.mesh import decoding_mesh, make_mesh
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.prompts.critique_revision import parse_reply

PRETRAINED = "model"  # folder of the model that the stage pretrain leaves


@dataclass(frozen=True)
class Outcome:
    """What a stage reports besides its files."""

    metrics: dict[str, Any]
    tokens: int  # read or written by models, padding not counted


@dataclass(frozen=True)
class Stage:
    """A step of the run.

    Attributes:
      name: also the name of its folder.
      inputs: stages whose folders it reads.
      settings: what of config and files it depends on, besides seed, model and its inputs.
      run: does the work, writing into the folder it is given.
    """

    name: str
    inputs: tuple[str, ...]
    settings: Callable[["Run"], list[Any]]
    run: Callable[["Run", Path], Outcome]


@dataclass(frozen=True)
class Run:
    """What all stages of a run share; opened lazily, so that a finished run opens nothing."""

    config: Config
    devices: Sequence[jax.Device] | None = None  # None: those that JAX sees
    workdir: Path = field(init=False)

    def __post_init__(self):
        object.__setattr__(self, "workdir", Path(self.config.workdir))

    @cached_property
    def constitution(self) -> Constitution:
        """The constitution of the run: of the file, as many principles as the config says."""
        c = self.config.constitution
        whole = load_constitution(Path(c.path))
        for field_name, there in (
            ("critique_principles", whole.critique_revision),
            ("feedback_principles", whole.feedback),
        ):
            if getattr(c, field_name) > len(there):
                raise ConfigError(
                    f"config.constitution.{field_name}: {getattr(c, field_name)}, but {c.path} "
                    f"has {len(there)}"
                )
        return replace(
            whole,
            critique_revision=whole.critique_revision[: c.critique_principles or None],
            feedback=whole.feedback[: c.feedback_principles or None],
        )

    @cached_property
    def red_team_prompts(self) -> list[Prompt]:
        """All red-team prompts."""
        return read_prompts(Path(self.config.data.red_team_prompts))

    @cached_property
    def helpful_prompts(self) -> list[Prompt]:
        """All helpfulness prompts."""
        return read_prompts(Path(self.config.data.helpful_prompts))

    @cached_property
    def helpfulness_pairs(self) -> list[LabelledPair]:
        """All labelled helpfulness pairs."""
        return read_pairs(Path(self.config.data.helpfulness_pairs))

    @cached_property
    def harmlessness_pairs(self) -> list[LabelledPair]:
        """All labelled harmlessness pairs: for audits and evaluation alone."""
        return read_pairs(Path(self.config.data.harmlessness_pairs))

    def file_hashes(self, *names: str) -> list[str]:
        """SHA-256 of files that people write, by their fields of ``config.data``."""
        return [file_sha256(Path(getattr(self.config.data, name))) for name in names]

    def training(self, items: list, count: int | None) -> list:
        """The first ``count`` items that are not held out; None: all of them."""
        return self._some(items, count, held_out=False)

    @staticmethod
    def repeated(prompts: list[Prompt], times: int) -> list[Prompt]:
        """Every prompt several times, under ids of their own, so that samples differ."""
        again = [Prompt(f"{p.id}.{n}", p.text) for n in range(1, times) for p in prompts]
        return [*prompts, *again]

    def held_out(self, items: list, count: int | None) -> list:
        """The first ``count`` held-out items; None: all of them."""
        return self._some(items, count, held_out=True)

    def _some(self, items: list, count: int | None, held_out: bool) -> list:
        percent = self.config.data.held_out_percent
        text = lambda item: item.text if isinstance(item, Prompt) else item.prompt
        return [i for i in items if is_held_out(text(i), percent) == held_out][:count]

    def audit_split(self, held_out: bool) -> list[LabelledPair]:
        """Half of the harmlessness pairs: the held-out one is for the audit alone."""
        return [p for p in self.harmlessness_pairs if is_held_out(p.prompt, 50) == held_out]

    @cached_property
    def mesh(self) -> Mesh:
        """The devices, as training splits work over them."""
        sizes = self.config.mesh
        return make_mesh(sizes.data, sizes.fsdp, sizes.tensor, self.devices)

    @cached_property
    def decode_mesh(self) -> Mesh:
        """The same devices as sampling splits work over them."""
        tensor = self.config.mesh.decode_tensor
        return decoding_mesh(self.mesh, tensor) if tensor else self.mesh

    @property
    def platform(self) -> str:
        """What the devices are: cpu, gpu or tpu."""
        return self.mesh.devices.flat[0].platform

    @cached_property
    def execution(self) -> Execution:
        """How decoders are run here."""
        model = self.config.model
        return Execution(attention_kernel(model.attention, self.platform), model.remat)

    @cached_property
    def dtype(self) -> jnp.dtype:
        """Type of activations and of frozen parameters."""
        return compute_dtype(self.config.model.compute_dtype, self.platform)

    @property
    def cache(self) -> Path:
        """Folder of downloads."""
        return cache_folder(self.config.model.cache)

    @property
    def model(self) -> str:
        """Source of the model that the run starts from: a given one, or its own."""
        return self.config.model.source or str(self.workdir / "pretrain" / PRETRAINED)

    def source(self, name: str) -> ModelSource:
        """A model source, empty meaning the run's own model."""
        return replace(resolve(name or self.model, self.cache), execution=self.execution)

    @cached_property
    def chat(self) -> ChatFormat:
        """Tokenizer and chat template of the run's model."""
        return self.chat_of(self.source(""))

    def chat_of(self, source: ModelSource) -> ChatFormat:
        """Tokenizer and chat template of a model."""
        return ChatFormat(load_tokenizer(source.path), self.config.model.system_prompt)

    @cached_property
    def oracle(self) -> Oracle | None:
        """What knows the truth about replies; evaluation alone may ask it."""
        name = self.config.evaluate.oracle
        return load_function(name, "config.evaluate.oracle") if name else None

    def usable_text(self, sample: Completion) -> str | None:
        """What a sampled reply says, up to its last whole sentence; None if it does not parse."""
        return parse_reply(self.chat.text(sample.ids), sample.finished, ())

    def checkpoint(self, stage: str) -> Path:
        """Where a training stage leaves its model."""
        return self.workdir / stage / "checkpoint"

    def stage_seed(self, *names: str | int) -> int:
        """A seed below 2**31 for libraries that take integers, from the run's seed and names."""
        return int(named_key(self.config.seed, *names)[0] >> 1)

    def merged(self, source: ModelSource, trained_fully: bool = False) -> Model:
        """A decoder to train from: float32 where all of it is trained, else the compute type."""
        param_dtype = jnp.dtype(jnp.float32) if trained_fully else self.dtype
        return load_merged(source, self.mesh, self.dtype, param_dtype)

    def policy(self, source: ModelSource) -> Model:
        """A decoder to run, in the compute type and in the layout of sampling."""
        return load_policy(source, self.decode_mesh, self.dtype, self.dtype)

    def generator(self, model: Model, chat: ChatFormat) -> Generator:
        """Samples from a decoder of ``policy``."""
        g = self.config.generation
        return Generator(
            model, self.decode_mesh, chat.stop_ids, g.batch_size, longest=g.context_tokens
        )

    def scorer(
        self,
        model: Model,
        mesh: Mesh | None = None,
        longest: int | None = None,
        offload: bool = False,
    ) -> Scorer:
        """Scores with a decoder of ``policy``, or with any model that lives on ``mesh``.

        Rows may have ``longest`` tokens; None: ``config.generation.context_tokens``; 0: any.
        """
        g, mesh = self.config.generation, mesh or self.decode_mesh
        longest = g.context_tokens if longest is None else longest
        return Scorer(model, mesh, g.score_batch_size, longest=longest, offload=offload)

    @property
    def sampling(self) -> Sampling:
        """How text is sampled outside RL and feedback."""
        g = self.config.generation
        return Sampling(g.temperature, g.top_k, g.top_p)

    @property
    def feedback_examples_all(self) -> tuple:
        """Few-shots of the configured feedback method."""
        thinks = self.config.feedback.method == "chain_of_thought"
        return self.constitution.thought_examples if thinks else self.constitution.choice_examples


def load_function(name: str, field: str) -> Callable:
    """The function that a config field names as MODULE:FUNCTION.

    Raises:
      ConfigError: there is none of this name.
    """
    module, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), attribute)
        if callable(found):
            return found
        problem = f"it is a {type(found).__name__}"
    except (ImportError, AttributeError, ValueError) as error:
        problem = error
    raise ConfigError(f"{field}: {name!r} is no function ({problem}); name one as MODULE:FUNCTION")


def lora_config(fields: Any) -> LoRAConfig | None:
    """LoRA as the config asks for it; rank 0 is none."""
    return LoRAConfig(fields.rank, fields.alpha) if fields.rank else None


def frozen_layers(trained_layers: int, source: ModelSource) -> int:
    """How many lower layers stay as they are; ``trained_layers`` 0 is all layers."""
    return max(source.config.num_layers - trained_layers, 0) if trained_layers else 0
