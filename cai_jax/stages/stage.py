"""What a stage is: a function of declared inputs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cai_jax.config import Config, naming, warmed_up
from cai_jax.constitution.schema import Constitution
from cai_jax.data.overlap import DEMONSTRATIONS
from cai_jax.data.readers import Attack, read_attacks
from cai_jax.learning.saving import SavePolicy, Saver
from cai_jax.learning.skipping import Skipping
from cai_jax.parallel.program import Program
from cai_jax.prompts.chat import ChatFormat
from cai_jax.red_teaming.attacks import FILE as ATTACKS
from cai_jax.stages.data import Data, Selection, apart
from cai_jax.stages.models import Models
from cai_jax.stages.reuse import Computed
from cai_jax.stages.workdir import Workdir
from cai_jax.storage.files import resolved
from cai_jax.storage.sealed import check_whole

# What some model of a run is trained on: the policies, the second preference model, the critic.
TRAINED = ("training", "second_model", DEMONSTRATIONS)


@dataclass(frozen=True)
class Outcome:
    """What a stage reports besides its files."""

    metrics: dict[str, Any]
    tokens: int  # read or written by models, padding not counted


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of a run, and all that it depends on besides seed and base model.

    Attributes:
      name: also the name of its folder.
      blocks: of the config; it receives these alone.
      execute: does the work, writing into the folder it is given.
      programs: what it compiles, from abstract models alone.
      needs: stages whose folders it reads.
      data: rows of files that people write, by name.
      constitution: parts of the constitution that it reads.
      groups: parts of the groups' constitutions that it reads.
      extra: what else it depends on, as JSON.
      check: refuses inputs that it cannot use, before anything is computed.
    """

    name: str
    blocks: tuple[str, ...]
    execute: Callable[["Inputs", Path], Outcome]
    programs: Callable[["Inputs"], list[Program]] = lambda inputs: []
    needs: tuple[str, ...] = ()
    data: Mapping[str, Selection] = field(default_factory=dict)
    constitution: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    extra: Callable[["Inputs"], Any] = lambda inputs: None
    check: Callable[["Inputs"], None] = lambda inputs: None


@dataclass(frozen=True)
class Inputs:
    """What a stage declared, and nothing else."""

    stage: Stage
    _run: "Run"
    computed: Computed = field(default_factory=Computed)  # values of its own, earlier ones too
    progress: Path | None = None  # folder of what it goes on from when it is cut off

    @property
    def seed(self) -> int:
        """Of everything random; keys derive from it and from names."""
        return self._run.config.seed

    @property
    def held_out(self) -> list[str]:
        """Keys of the split, in order, that no model of the run is trained on."""
        purposes = self._run.data.purposes.items()
        return sorted(key for key, purpose in purposes if purpose not in TRAINED)

    @cached_property
    def config(self) -> Any:
        """The declared blocks of the config, as attributes."""
        blocks = {name: getattr(self._run.config, name) for name in self.stage.blocks}
        return SimpleNamespace(**blocks)

    @property
    def models(self) -> Models:
        """Models of the run, and the devices that they are on."""
        return self._run.models

    @cached_property
    def constitution(self) -> Constitution:
        """The constitution, with the declared parts alone."""
        return self._run.data.constitution.only(self.stage.constitution)

    @cached_property
    def groups(self) -> dict[str, Constitution]:
        """By group, its constitution, with the declared parts alone; "" where there is one."""
        found = self._run.data.groups.items()
        return {group: constitution.only(self.stage.groups) for group, constitution in found}

    @cached_property
    def constitution_sha256(self) -> str:
        """Of the whole constitution: where records come from."""
        return self._run.data.constitution.content_hash()

    def group_sha256(self, group: str) -> str:
        """The same of a group's."""
        return self._run.data.groups[group].content_hash()

    def rows(self, name: str) -> list[Any]:
        """Declared rows of a file that people write."""
        return self._run.data.select(self.stage.data[name], self._run.config)

    @cached_property
    def turns(self) -> dict[bool, list[str]]:
        """What users say first in all rows: True, in those of training; False, in others."""
        found: dict[bool, list[str]] = {True: [], False: []}
        for turn in self._run.data.turns:
            found[turn.purpose == "training"].append(turn.text)
        return found

    @property
    def trained_turns(self) -> list[str]:
        """What users say first in all rows that any model of the run is trained on."""
        return [turn.text for turn in self._run.data.turns if turn.purpose in TRAINED]

    @property
    def attacks(self) -> list[Attack]:
        """Prompts to train on that attackers wrote: those of a file, and of the stage red_team.

        No id of theirs is that of another row which the stage declares.

        Raises:
          KeyError: this stage does not declare them.
        """
        found = self.rows("attacks")
        if self._run.config.red_team.rounds and "red_team" in self.stage.needs:
            file = self.artifact("red_team") / ATTACKS
            found = [*found, *(read_attacks(file) if file.exists() else ())]
        return apart(
            found, [row for n in self.stage.data if n != "attacks" for row in self.rows(n)]
        )

    @property
    def workdir(self) -> Path:
        """Folder of the run: checkpoints name models in it by paths relative to it."""
        return self._run.workdir.path

    def artifact(self, stage: str) -> Path:
        """Folder of a stage that this one needs.

        Raises:
          KeyError: this stage does not declare that it needs it.
          NotWholeError: a file of it is not what was written.
        """
        self._require(stage)
        folder = self._run.workdir.folder(stage)
        check_whole(folder)
        return folder

    def manifest(self, stage: str) -> dict[str, Any]:
        """Manifest of a stage that this one needs; raises as ``artifact`` does."""
        self._require(stage)
        return self._run.workdir.manifest(stage)

    @property
    def whole_run(self) -> "Run":
        """For the report, which tells of the whole run: all stages that it needs depend on it."""
        return self._run

    def saver(self, part: str = "", iterations: bool = False) -> Saver:
        """Of the states of its training.

        Args:
          part: tells one training of a stage from another.
          iterations: its steps are iterations of RL.
        """
        c = self._run.config.resume
        every = c.every_iterations if iterations else c.every_steps
        folder = self.progress and self.progress / "states" / part
        return Saver(folder, SavePolicy(every, c.keep, c.max_share))

    def skipping(
        self, block: str, start: str, open_chat: Callable[[], ChatFormat], part: str = ""
    ) -> Skipping:
        """What its training does about updates that are not finite.

        Args:
          block: of the config, that has the learning rate.
          start: where the parameters come from that it begins with.
          open_chat: gives the chat format that its token ids are of.
          part: as of ``saver``.
        """
        limit = self._run.config.training.max_skipped_steps
        rate = getattr(self.config, block).learning_rate
        return Skipping(
            limit=limit,
            folder=self.progress and self.progress / "skipped" / part,
            text=lambda ids: open_chat().text(ids),
            start=start,
            lower_rate=f"lower config.{block}.learning_rate (now {rate:g})",
            allow_more=f"raise config.training.max_skipped_steps (now {limit})",
        )

    def _require(self, stage: str) -> None:
        if stage not in self.stage.needs:
            raise KeyError(f"stage {self.stage.name} does not declare that it needs {stage}")


@dataclass(frozen=True)
class Run:
    """A config, the folder that it leaves its results in, its models and its data."""

    config: Config
    workdir: Workdir
    models: Models
    data: Data

    def inputs(
        self, stage: Stage, computed: Computed | None = None, progress: Path | None = None
    ) -> Inputs:
        """What a stage receives.

        Args:
          stage: that receives it.
          computed: has what its earlier versions leave it.
          progress: folder of what it goes on from; None: it starts over.
        """
        return Inputs(stage, self, computed or Computed(), progress)


def open_run(config: Config, devices: Any = None, ahead: bool = False) -> Run:
    """A run; opened lazily, so that a finished one opens no model.

    Args:
      config: of the run.
      devices: that it is laid out over; None: those that JAX sees.
      ahead: whether models are described by their architecture alone, and never loaded.
    """
    with naming("config.workdir"):
        workdir = Workdir(resolved(config.workdir))
    models = Models(config, workdir, devices, ahead)
    return Run(
        config,
        workdir,
        models,
        Data(
            config.constitution,
            config.data,
            config.evaluate.benchmarks,
            config.seed,
            demonstrated=warmed_up(config),
        ),
    )
