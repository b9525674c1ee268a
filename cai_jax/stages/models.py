"""Models of a run: which there are, on which devices, and how they are loaded."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cai_jax.config import Config, ConfigError, LoRAFields, naming
from cai_jax.models.blueprint import Blueprint, Model
from cai_jax.models.config import Execution, LoRAConfig
from cai_jax.models.decoder import Decoder
from cai_jax.models.heads import PolicyWithValue, PreferenceModel
from cai_jax.models.io.checkpoint import CheckpointInfo
from cai_jax.models.io.load import load_policy, load_preference_model, loading_programs
from cai_jax.models.io.sources import ModelSource, cache_folder, pinned, resolve, stamp, update_info
from cai_jax.parallel import hosts
from cai_jax.parallel.devices import attention_kernel, compute_dtype
from cai_jax.parallel.mesh import decoding_mesh, make_mesh
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat, open_chat
from cai_jax.reading import validated
from cai_jax.stages.workdir import Workdir
from cai_jax.storage.files import resolved

PRETRAINED = "model"  # folder of the model that the stage pretrain leaves
REVISIONS = "revisions.json"  # of the workdir: commits of the models, by source
CHECKPOINT = "checkpoint"  # folder of the model that a training stage leaves


@dataclass(frozen=True)
class Policy:
    """A policy of a run."""

    label: str  # its name, as people read it
    stages: tuple[str, ...]  # that it has been through
    checkpoint: str = CHECKPOINT  # folder in the last of them


POLICIES = {
    "base": Policy("base", ()),
    "sl_cai": Policy("SL-CAI", ("sl_train",)),
    "rl_cai": Policy("RL-CAI", ("sl_train", "rl")),
}


class Models:
    """Models of a run and their devices; sources are resolved when they are first needed.

    What a stage will leave is described by the config, so a model is known before it exists: it is
    abstract first, and filled from files where they are there.

    Args:
      config: of the run.
      workdir: that trained models are in.
      devices: that models are sharded over; None: those that JAX sees.
      ahead: describe the base model by ``config.model.architecture``, and load nothing.
    """

    def __init__(
        self,
        config: Config,
        workdir: Workdir,
        devices: Sequence[jax.Device] | None = None,
        ahead: bool = False,
    ):
        self._config, self._workdir, self._devices, self.ahead = config, workdir, devices, ahead
        self._sources: dict[str, ModelSource] = {}
        self._chats: dict[Path, ChatFormat] = {}

    @cached_property
    def mesh(self) -> Mesh:
        """The devices, as training splits work over them."""
        sizes = self._config.mesh
        with naming("config.mesh"):
            return make_mesh(sizes.data, sizes.fsdp, sizes.tensor, self._devices)

    @cached_property
    def decode_mesh(self) -> Mesh:
        """The same devices as sampling splits work over them."""
        mesh, tensor = self.mesh, self._config.mesh.decode_tensor
        with naming("config.mesh.decode_tensor"):
            return decoding_mesh(mesh, tensor) if tensor else mesh

    @property
    def platform(self) -> str:
        """What the devices are: cpu, gpu or tpu."""
        return self.mesh.devices.flat[0].platform

    @cached_property
    def execution(self) -> Execution:
        """How decoders are run here."""
        model = self._config.model
        return Execution(attention_kernel(model.attention, self.platform), model.remat)

    @cached_property
    def dtype(self) -> jnp.dtype:
        """Of activations, matmuls and frozen parameters."""
        return compute_dtype(self._config.model.compute_dtype, self.platform)

    @property
    def base_name(self) -> str:
        """Source of the model that the run starts from: a given one, or its own."""
        own = self._workdir.folder("pretrain") / PRETRAINED
        return self.pinned(self._config.model.source) or str(own)

    @property
    def sl_base_name(self) -> str:
        """Source of the model that SL-CAI is trained from."""
        return self.pinned(self._config.sl_train.source) or self.base_name

    def pin(self) -> None:
        """Looks up the commits of the repositories that the config names, and records them.

        The main host does it, once for a workdir: a run that goes on has the models that it began
        with, whatever has been pushed since.
        """
        c = self._config
        blocks = [getattr(c, field.name) for field in fields(c)]
        sources = {getattr(block, "source", "") for block in blocks}
        sources |= {c.red_team.target, c.red_team.judge, c.evaluate.judge}
        missing = sorted(s for s in sources if s.startswith("hf:") and s not in self._revisions)
        if not missing:
            return
        cache = cache_folder(self._config.model.cache)
        found = {name: pinned(name, cache) for name in missing if hosts.is_main()}
        found = hosts.from_main("the commits of the models", dict[str, str], found, hosts.LONG)
        self._revisions.update(found)
        if hosts.is_main():
            self._workdir.path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self._revisions, indent=2) + "\n"
        hosts.write_text(self._workdir.path / REVISIONS, text)

    @cached_property
    def _revisions(self) -> dict[str, str]:
        """Sources with their commits, by the names that the config has for them."""
        file = self._workdir.path / REVISIONS
        return validated(dict[str, str], file) if file.exists() else {}

    def pinned(self, name: str) -> str:
        """A source as ``pin`` recorded it."""
        return self._revisions.get(name, name)

    def identity(self, name: str) -> list[Any]:
        """What tells a model from another of the same name: its files, or the commit."""
        return [self.pinned(name)] if name.startswith("hf:") else stamp(name)

    def source(self, name: str = "") -> ModelSource:
        """A model source, empty meaning the one that the run starts from.

        Raises:
          ValueError: there is none of this name.
          ConfigError: compile ahead would have to download it.
        """
        architecture = self._config.model.architecture
        if self.ahead and name.startswith("hf:"):
            raise ConfigError(
                f"model source {name}: compile ahead downloads no weights; give a folder with that "
                "model's config.json instead"
            )
        if self.ahead and not name and architecture:
            with naming("config.model.architecture"):
                return ModelSource(resolved(architecture))
        if name not in self._sources:  # a hub would be asked again each time
            cache = cache_folder(self._config.model.cache)
            self._sources[name] = resolve(self.pinned(name) or self.base_name, cache)
        return self._sources[name]

    @property
    def critic_source(self) -> ModelSource:
        """Criticises, revises, and gives feedback unless the config names another model for that.

        It is the model that the run starts from, with the adapter of the warm-up if there is one,
        whether or not that stage has run.
        """
        c, below = self._config.warm_up, self.source()
        if c.epochs:
            info = CheckpointInfo("policy", "", lora_config(c.lora))
            return below.trained(self.checkpoint("warm_up"), info)
        if not c.source:
            return below
        with naming("config.warm_up.source"):
            folder = resolved(c.source)
            info = update_info(folder)
            if info.kind != "policy" or info.lora is None:
                raise ValueError(f"{folder} holds no low-rank update of a language model")
            return below.trained(folder, info)

    @property
    def critic_name(self) -> str:
        """Where the critic comes from."""
        trained = str(self.checkpoint("warm_up")) if self._config.warm_up.epochs else ""
        return self._config.warm_up.source or trained or self.base_name

    def feedback_source(self, named: str) -> ModelSource:
        """The feedback model: the one that is named, or the critic."""
        return self.source(named) if named else self.critic_source

    def policy_source(self, named: str | Policy) -> ModelSource:
        """The source of a policy, or of one of ``POLICIES``, whether or not its stages have run."""
        policy, c = POLICIES[named] if isinstance(named, str) else named, self._config
        stages = policy.stages
        source = self.source(c.sl_train.source if stages else "")
        if stages and c.rl.lora.rank and c.sl_train.lora.rank:
            stages = stages[-1:]  # RL trains SL-CAI's update further: there is one
        for stage in stages:
            lora = lora_config(getattr(c, stage).lora)
            name = policy.checkpoint if stage == policy.stages[-1] else CHECKPOINT
            folder = self._workdir.folder(stage) / name
            source = source.trained(folder, CheckpointInfo("policy", "", lora))
        return source

    def preference_source(self, stage: str = "pm_train", group: str = "") -> ModelSource:
        """The source of a group's preference model, whether or not its stage has run."""
        pm = self._config.pm_train
        info = CheckpointInfo("preference", "", lora_config(pm.lora))
        return self.source(pm.source).trained(self.checkpoint(stage, group), info)

    def checkpoint(self, stage: str, group: str = "") -> Path:
        """Where a training stage leaves its model, of those of groups that of one."""
        return self._workdir.folder(stage) / group / CHECKPOINT

    def blueprint(
        self,
        module: type[Decoder | PreferenceModel | PolicyWithValue],
        source: ModelSource,
        lora: LoRAConfig | None = None,
        trained_layers: int = 0,
    ) -> Blueprint:
        """How a module over a source's decoder is built here.

        Args:
          module: that is built.
          source: of the decoder.
          lora: adds low-rank updates.
          trained_layers: no gradient passes below the last ones; 0: all are trained.
        """
        config = replace(source.config, execution=self.execution)
        frozen = max(config.num_layers - trained_layers, 0) if trained_layers else 0
        return Blueprint(module, config, self.dtype, lora, frozen)

    def policy(self, source: ModelSource, base: Model | None = None) -> Model:
        """A decoder as it was trained, in the layout of sampling; abstract ahead, else loaded.

        Args:
          source: of the decoder.
          base: the run's base model, where it is loaded already: it is given back for its own
            source, and what a low-rank update of it shares with it is not loaded again.
        """
        if base is not None and source == self.source():
            return base
        mesh, blueprint = self.decode_mesh, self.blueprint(Decoder, source, source.lora)
        if self.ahead:
            return blueprint.abstract(mesh)
        shares = base is not None and source.lora and source.below == self.source()
        return load_policy(source, blueprint, mesh, base=base if shares else None)

    def loading_programs(self, source: ModelSource) -> list[Program]:
        """What loading a policy or preference model compiles: merges of low-rank updates."""
        policy = source.kind == "policy"
        module, mesh = (Decoder, self.decode_mesh) if policy else (PreferenceModel, self.mesh)
        model = self.blueprint(module, source, source.lora).abstract(mesh)
        return loading_programs(source, model.params)

    def preference_model(self, stage: str = "pm_train", group: str = "") -> Model:
        """A preference model of the run; as ``preference``."""
        return self.preference(self.preference_source(stage, group))

    def preference(self, source: ModelSource) -> Model:
        """A preference model in the layout of training; abstract ahead, else loaded."""
        blueprint = self.blueprint(PreferenceModel, source, source.lora)
        if self.ahead:
            return blueprint.abstract(self.mesh)
        return load_preference_model(source, blueprint, self.mesh)

    @cached_property
    def chat(self) -> ChatFormat:
        """Tokenizer and chat template of the run's model."""
        return self.chat_of(self.source())

    def chat_of(self, source: ModelSource) -> ChatFormat:
        """Tokenizer and chat template of a model."""
        if source.path not in self._chats:  # checkpoints have those of their base
            model = self._config.model
            self._chats[source.path] = open_chat(source, model.system_prompt, model.date)
        return self._chats[source.path]

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a reply of the run's model."""
        return self.stop_ids_of(self.source())

    def stop_ids_of(self, source: ModelSource) -> tuple[int, ...]:
        """Ids that end a model's reply; where there is no tokenizer, those of its config."""
        return self.chat_of(source).stop_ids if source.has_tokenizer else source.stop_ids


def lora_config(fields: LoRAFields) -> LoRAConfig | None:
    """LoRA as the config asks for it; rank 0 is none."""
    return LoRAConfig(fields.rank, fields.alpha) if fields.rank else None
