"""A run: its config, its workdir, and what its stages share.

A stage writes one folder of the workdir. The folder's manifest holds the fingerprint of all that
the stage depends on; a stage whose folder carries the current fingerprint is not run again.
"""

import fcntl
import importlib
import json
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from cai_jax.config import Config, ConfigError, differences, fingerprint
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
from cai_jax.models.config import Execution, LoRAConfig
from cai_jax.models.io.load import Model, load_merged, load_policy
from cai_jax.models.io.sources import ModelSource, cache_folder, resolve, stamp
from cai_jax.parallel import hosts
from cai_jax.parallel.devices import attention_kernel, compute_dtype
from cai_jax.parallel.keys import named_key
from cai_jax.parallel.mesh import batch_multiple, decoding_mesh, make_mesh
from cai_jax.prompts.chat import ChatFormat, load_tokenizer
from cai_jax.prompts.critique_revision import parse_reply

log = logging.getLogger("cai_jax")

MANIFEST = "manifest.json"
PRETRAINED = "model"  # folder of the model that the stage pretrain leaves
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "seqio")


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

    def check_inputs(self) -> None:
        """Reads every file that people write, so that a bad one stops the run at its start.

        Raises:
          ValueError: a file cannot be used, or holds less than the config asks for.
        """
        c, constitution = self.config, self.constitution
        for field_name, name in (
            ("config.pretrain.corpus", c.pretrain.corpus if c.pretrain else ""),
            ("config.evaluate.oracle", c.evaluate.oracle),
        ):
            if name:
                load_function(name, field_name)
        for field_name, few, examples in (
            ("sl_data.few_shots", c.sl_data.few_shots, constitution.critique_examples),
            ("feedback.few_shots", self._choice_shots(), self.feedback_examples_all),
        ):
            if few > len(examples):
                raise ConfigError(
                    f"config.{field_name}: {few}, but {c.constitution.path} has {len(examples)} "
                    "such few-shots"
                )
        if c.feedback.principles_per_pair > len(constitution.feedback):
            raise ConfigError(
                f"config.feedback.principles_per_pair: {c.feedback.principles_per_pair}, but only "
                f"{len(constitution.feedback)} feedback principles of {c.constitution.path} are "
                "in use"
            )
        for items, path in (
            (self.red_team_prompts, c.data.red_team_prompts),
            (self.helpful_prompts, c.data.helpful_prompts),
            (self.helpfulness_pairs, c.data.helpfulness_pairs),
            (self.harmlessness_pairs, c.data.harmlessness_pairs),
        ):
            if not self.held_out(items, 1) or not self.training(items, 1):
                raise ConfigError(
                    f"{path}: {len(items)} rows leave one side of the split empty at "
                    f"config.data.held_out_percent = {c.data.held_out_percent}; add rows"
                )
        red_team, helpful = self.red_team_prompts, self.helpful_prompts
        for field_name, rows, of in (
            ("sl_data.red_team_prompts", self.training(red_team, None), "red_team_prompts"),
            ("sl_data.helpful_prompts", self.training(helpful, None), "helpful_prompts"),
            ("feedback.prompts", self.training(red_team, None), "red_team_prompts"),
            (
                "pm_train.helpfulness_pairs",
                self.training(self.helpfulness_pairs, None),
                "helpfulness_pairs",
            ),
            ("evaluate.red_team_prompts", self.held_out(red_team, None), "red_team_prompts"),
            ("evaluate.helpful_prompts", self.held_out(helpful, None), "helpful_prompts"),
        ):
            stage, name = field_name.split(".")
            asked = getattr(getattr(c, stage), name)
            if asked > len(rows):
                side = "held-out" if stage == "evaluate" else "training"
                raise ConfigError(
                    f"config.{field_name}: {asked}, but {getattr(c.data, of)} has {len(rows)} "
                    f"{side} rows; name a larger file in config.data.{of}, or set it to at most "
                    f"{len(rows)}"
                )

    def check_models(self) -> None:
        """Resolves every model and the mesh before anything is computed.

        Raises:
          ValueError: a source cannot be resolved, the mesh does not fit the devices, or the
            config asks for more positions than the model has.
        """
        c = self.config
        for field_name in ("model", "feedback", "pm_train"):
            name = getattr(c, field_name).source
            if name and self.source(name).kind != "policy":
                raise ConfigError(
                    f"config.{field_name}.source: {name} is a preference model; name a language "
                    "model"
                )
        if c.model.architecture:
            planned = ModelSource(Path(c.model.architecture)).config
            found = replace(self.source("").config, execution=planned.execution)
            if found != planned:
                raise ConfigError(
                    f"config.model.architecture: {c.model.architecture}/config.json describes "
                    f"another model than {self.model}; empty the field, or give that model's"
                )
        positions = c.pretrain.max_length if c.pretrain else self.source("").config.max_length
        for field_name, length in (
            ("generation.context_tokens", c.generation.context_tokens),
            ("rl.prompt_tokens + response_tokens", c.rl.prompt_tokens + c.rl.response_tokens),
        ):
            if length > positions:
                raise ConfigError(
                    f"config.{field_name}: {length}, but {self.model} was made for {positions} "
                    "tokens; lower it"
                )
        _ = self.decode_mesh

        for problem in self.unsplit_rows():
            log.warning(problem)

    def unsplit_rows(self) -> list[str]:
        """Stages whose training rows do not split over the devices, each with the mend."""
        c, ways, found = self.config, batch_multiple(self.mesh), []
        numbers = {
            "pretrain": c.pretrain.micro_batches if c.pretrain else 0,
            "sl_train": c.sl_train.micro_batches,
            "pm_train": c.pm_train.micro_batches,
            "rl": c.rl.minibatches * c.rl.micro_batches,
        }
        for name in filter(numbers.get, numbers):
            rows = getattr(c, name).batch_size // numbers[name]
            if rows % ways:
                parts = "minibatches and micro-batches" if name == "rl" else "micro-batches"
                found.append(
                    f"config.{name}.batch_size: {rows} rows at once do not split over {ways} "
                    f"devices, so that each computes all of them; make it, divided by {parts}, a "
                    f"multiple of {ways}"
                )
        return found

    def _choice_shots(self) -> int:
        return 0 if self.config.feedback.method == "contrast" else self.config.feedback.few_shots

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


def fingerprints(run: Run, stages: list[Stage]) -> dict[str, str]:
    """Fingerprint of every stage, each including those of its inputs."""
    model = run.config.model
    shared = [run.config.seed, model.source, stamp(model.source), model.system_prompt]
    shared += [run.config.mesh, run.config.data.held_out_percent, str(run.dtype)]
    prints: dict[str, str] = {}
    for stage in stages:
        below = [prints[name] for name in stage.inputs if name in prints]
        prints[stage.name] = fingerprint(stage.name, shared, stage.settings(run), below)
    return prints


def claim_workdir(run: Run) -> None:
    """Writes the config into the workdir, or checks that the workdir is this config's.

    Raises:
      ConfigError: the workdir was made with another config.
    """
    file = run.workdir / "config.json"
    tree = json.loads(json.dumps(asdict(run.config)))
    for name in ("stages", "rerun_changed", "workdir", "stage_store"):
        tree.pop(name)
    tree["model"].pop("cache")
    hosts.check_shared(run.workdir)
    if file.exists() and not run.config.rerun_changed:
        changed = differences(json.loads(file.read_text(encoding="utf-8")), tree)
        if changed:
            raise ConfigError(
                f"{run.workdir}: was made with another config:\n  " + "\n  ".join(changed) + "\n"
                "Give another --config.workdir, or --config.rerun_changed=True to redo the stages "
                "that this changes"
            )
    hosts.sync("the config of the workdir")
    if hosts.is_main():
        run.workdir.mkdir(parents=True, exist_ok=True)
    hosts.write_text(file, json.dumps(tree, indent=2) + "\n")


def run_stages(run: Run, stages: list[Stage]) -> None:
    """Runs the wanted stages in order, skipping those that are up to date.

    Raises:
      ConfigError: a wanted stage needs one that is neither wanted nor up to date.
    """
    prints = fingerprints(run, stages)
    hosts.check_same(
        "what the stages depend on",
        prints,
        "Data files, the constitution, a local model and the type of products must be the same.",
    )
    wanted = [stage for stage in stages if stage.name in run.config.stages]
    for stage in wanted:
        for name in stage.inputs:
            wanted_too = name in run.config.stages or name not in prints
            if not wanted_too and read_fingerprint(run, name) != prints[name]:
                raise ConfigError(
                    f"stage {stage.name} needs {name}, which has not been run in {run.workdir} "
                    f"with this config; add it to --config.stages"
                )
    for stage in wanted:
        done = read_fingerprint(run, stage.name) == prints[stage.name]
        if hosts.from_main(f"{stage.name} is done", done):
            log.info("%s: up to date", stage.name)
        elif run.config.stage_store:
            _run_shared(run, stage, prints[stage.name])
        else:
            _run_one(run, stage, prints[stage.name])
        _see(run, stage, prints[stage.name])


def _see(run: Run, stage: Stage, print_: str) -> None:
    """Waits until this host sees the stage that the main one has put in place.

    A network file system may show for a minute what was there before.

    Raises:
      OSError: it does not see it.
    """
    if not hosts.becomes_true(lambda: read_fingerprint(run, stage.name) == print_, 120):
        raise OSError(
            f"{run.workdir / stage.name}: finished on the main host, but not seen on this one "
            "after 120 s; mount the workdir with a shorter attribute cache"
        )


def _run_shared(run: Run, stage: Stage, print_: str) -> None:
    """Takes a stage from the store, or runs it and leaves it there.

    Runs that want the same stage at the same time wait for the first one.
    """
    kept = Path(run.config.stage_store) / f"{stage.name}-{print_}"
    with _locked(kept) if hosts.is_main() else nullcontext():
        there = (kept / MANIFEST).exists()
        if hosts.from_main(f"{stage.name} is kept", there, hosts.LONG):  # another run may be at it
            _copy_folder(kept, run.workdir / stage.name)
            log.info("%s: taken from %s", stage.name, kept)
        else:
            _run_one(run, stage, print_)
            _copy_folder(run.workdir / stage.name, kept)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _copy_folder(source: Path, target: Path) -> None:
    """Links instead of copies: files of finished stages are replaced, never changed."""
    if hosts.is_main():
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial, copy_function=_link)
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    hosts.sync(f"{target} is copied")


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)


def _run_one(run: Run, stage: Stage, print_: str) -> None:
    hosts.note(f"stage {stage.name}")
    log.info("%s: running", stage.name)
    partial = run.workdir / f".{stage.name}.partial"
    if hosts.is_main():
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    hosts.sync(f"{stage.name} starts")
    started = time.monotonic()
    outcome = stage.run(run, partial)
    seconds = time.monotonic() - started
    manifest = {
        "stage": stage.name,
        "fingerprint": print_,
        "seconds": round(seconds, 2),
        "tokens": outcome.tokens,
        "tokens_per_second": round(outcome.tokens / seconds, 1),
        "metrics": outcome.metrics,
        "constitution": run.constitution.name,
        "constitution_sha256": run.constitution.content_hash(),
        "model": run.model,
        "seed": run.config.seed,
        "versions": versions(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    hosts.sync(f"{stage.name} ends")
    if hosts.is_main():
        _finish(run, partial, manifest)
    hosts.sync(f"{stage.name} is kept")
    log.info("%s: done in %.0f s", stage.name, seconds)


def _finish(run: Run, partial: Path, manifest: dict[str, Any]) -> None:
    """Puts a stage's folder in its place, the manifest making it a finished one."""
    text = json.dumps(manifest, indent=2) + "\n"
    (partial / MANIFEST).write_text(text, encoding="utf-8")
    shutil.copy(run.config.constitution.path, partial / "constitution.yaml")
    final = run.workdir / manifest["stage"]
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def read_manifest(run: Run, stage: str) -> dict[str, Any]:
    """Manifest of a finished stage."""
    return json.loads((run.workdir / stage / MANIFEST).read_text(encoding="utf-8"))


def read_fingerprint(run: Run, stage: str) -> str | None:
    """Fingerprint of a stage's folder; None if it is not finished."""
    return (
        read_manifest(run, stage)["fingerprint"]
        if (run.workdir / stage / MANIFEST).exists()
        else None
    )


def versions() -> dict[str, str]:
    """Versions of ours and of what computes."""
    return {"cai_jax": metadata.version("cai_jax")} | {p: metadata.version(p) for p in PACKAGES}
