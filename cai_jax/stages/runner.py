"""Runs the stages of a workdir that are not done yet.

A stage whose folder carries the current fingerprint, a hash of all that it declares and of the
fingerprints of the stages it needs, is not run again.
"""

import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

import cai_jax
from cai_jax.config import ConfigError, results_of
from cai_jax.constitution.schema import Constitution
from cai_jax.generation.batching import TooLongError
from cai_jax.generation.finite import NotFiniteError
from cai_jax.generation.journal import Journal, keeping
from cai_jax.parallel import hosts
from cai_jax.parallel.compilation import compilation
from cai_jax.redaction import without_secrets
from cai_jax.stages.checks import check_rows
from cai_jax.stages.estimate import TimeLeft, time_left
from cai_jax.stages.pretrain import STAGE as PRETRAIN
from cai_jax.stages.provenance import provenance
from cai_jax.stages.reuse import Computed
from cai_jax.stages.stage import Inputs, Run, Stage
from cai_jax.stages.workdir import Workdir, link_folder, locked
from cai_jax.storage.files import resolved
from cai_jax.storage.sealed import repair

log = logging.getLogger("cai_jax")


def fingerprints(run: Run, stages: Sequence[Stage]) -> dict[str, str]:
    """Fingerprint of every stage, each including those of the stages that it needs."""
    shared, found = _shared(run), dict[str, str]()
    for stage in stages:
        below = [found[name] for name in stage.needs if name in found]
        found[stage.name] = _hash([stage.name, shared, declared(run.inputs(stage)), below])
    return found


def _shared(run: Run) -> list[Any]:
    """What all stages depend on."""
    model = run.config.model
    told = [model.system_prompt, model.date]
    shared = [cai_jax.__version__, run.config.seed, *told, str(run.models.dtype)]
    return [*shared, run.models.pinned(model.source), run.models.identity(model.source)]


def origin(run: Run, stage: Stage, found: Mapping[str, str]) -> str:
    """Hash of what all values of a stage come from: seed, models, and the stages below it.

    Args:
      run: that they are of.
      stage: that computes them.
      found: fingerprints.
    """
    blocks = [getattr(run.config, name) for name in stage.blocks]
    named = [block.source for block in blocks if hasattr(block, "source")]
    sources = [(name, run.models.identity(name)) for name in named]
    below = [found[name] for name in stage.needs if name in found]
    return _hash([stage.name, _shared(run), sources, below])


def declared(inputs: Inputs) -> list[Any]:
    """All that a stage declares: config blocks, models that they name, rows and principles."""
    stage = inputs.stage
    blocks = {name: getattr(inputs.config, name) for name in stage.blocks}
    return [
        {name: results_of(block) for name, block in blocks.items()},
        [inputs.models.identity(b.source) for b in blocks.values() if hasattr(b, "source")],
        {name: [asdict(row) for row in inputs.rows(name)] for name in stage.data},
        _parts(inputs.constitution, stage.constitution),
        stage.groups and {group: _parts(c, stage.groups) for group, c in inputs.groups.items()},
        stage.extra(inputs),
    ]


def _parts(constitution: Constitution, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: asdict(constitution)[name] for name in names}


def _hash(parts: Any) -> str:
    """16 hex digits."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8")).hexdigest()[:16]


def run_stages(
    run: Run,
    stages: Sequence[Stage],
    after: Callable[[Run, Mapping[str, str]], None] = lambda run, found: None,
) -> None:
    """Runs the wanted stages in order, skipping those that are up to date.

    Args:
      run: that they are of.
      stages: all of the run.
      after: called with all fingerprints after each stage that was made, and at the end.

    Raises:
      ConfigError: a wanted stage needs one that is neither wanted nor up to date; or a row has no
        room in a model that the run has pretrained.
    """
    wanted = [stage for stage in stages if stage.name in run.config.stages]
    own = [stage for stage in stages if stage.name == PRETRAIN.name]  # makes the tokenizer
    if own and _is_done(run, own):
        check_rows(run)
        own = []
    found, due = _plan(run, stages)
    left = _time_left(run, [stage for stage in wanted if stage.name in due])
    log.info("stages: %d done, %d left%s", len(wanted) - len(due), len(due), left)
    if own:
        log.info("rows are measured when pretrain has ended, which makes the tokenizer")
    for stage in wanted:
        made = stage.name in due
        _bring(run, stage, found, made, left)
        left.drop(stage.name)
        if stage in own and stage is not wanted[-1]:
            check_rows(run)
            found, due = _plan(run, stages)  # rows may have been left out
        if made or stage is wanted[-1]:
            after(run, found)


def _time_left(run: Run, stages: Sequence[Stage]) -> TimeLeft:
    """What the stages are to take; the main host tells it."""
    reused = [resolved(run.config.reuse_from)] if run.config.reuse_from else []
    return time_left(run, stages if hosts.is_main() else (), reused, _devices())


def _devices() -> str:
    """As manifests name them."""
    return f"{jax.device_count()} x {jax.devices()[0].device_kind}"


def _is_done(run: Run, stages: Sequence[Stage]) -> bool:
    """Whether stages that need no others are finished; on all hosts alike."""
    found = fingerprints(run, stages)
    done = all(run.workdir.fingerprint(name) == found[name] for name in found)
    return hosts.from_main("which stages are finished", bool, done)


def _plan(run: Run, stages: Sequence[Stage]) -> tuple[dict[str, str], list[str]]:
    """Fingerprints of the stages, and which of the wanted ones are to be made; on all hosts."""
    found = fingerprints(run, stages)
    hosts.check_same(
        "what the stages depend on",
        found,
        "Data files, the constitution, a local model and the compute dtype must be the same.",
    )
    due, what = due_stages(run, stages, found) if hosts.is_main() else [], "which stages to run"
    return found, hosts.from_main(what, list[str], due, hosts.LONG)  # hashes take their time


def _bring(run: Run, stage: Stage, found: Mapping[str, str], due: bool, left: TimeLeft) -> None:
    """Makes a stage, or takes it from where it has been made."""
    c, folder = run.config, run.workdir.folder(stage.name)
    earlier = Workdir(resolved(c.reuse_from)) if c.reuse_from else None
    there = bool(earlier and due and _is_whole(earlier, stage, found))
    what = f"{stage.name} is in the earlier run"
    if not due:
        log.info("%s: up to date", stage.name)
        run.workdir.drop_progress(stage.name)  # of a run that was killed when it had finished it
    elif earlier and hosts.from_main(what, bool, there, hosts.LONG):
        link_folder(earlier.folder(stage.name), folder)
        log.info("%s: taken from %s", stage.name, earlier.path)
    elif c.stage_store:
        _run_shared(run, stage, found, left)
    else:
        _run_one(run, stage, found, left)
    run.workdir.wait_until_visible(stage.name, found[stage.name])


def due_stages(run: Run, stages: Sequence[Stage], found: Mapping[str, str]) -> list[str]:
    """Names of the wanted stages that are to be made.

    They are those that are not finished, and those that are, but of which a stage that is made
    would read a file that is not what was written: sizes are compared at every start, the hashes of
    large files before the files are read.

    Raises:
      ConfigError: a wanted stage needs one that is neither wanted nor up to date.
      OSError: something that is no folder is in the way of a stage.
    """
    workdir, wanted = run.workdir, run.config.stages
    due, missing, read, needed = list[str](), list[str](), set[str](), set[str]()
    for stage in reversed(stages):
        name = stage.name
        if name in wanted or name in needed:
            whole = workdir.fingerprint(name, hash_all=name in read) == found[name]
            if name in wanted and not whole:
                due.append(name)
            elif not whole:
                missing.append(name)
        if name in wanted:
            needed.update(stage.needs)
        if name in due or name in read:
            read.update(stage.needs)
    if missing:
        first = missing[-1]
        user = next(s.name for s in stages if first in s.needs and s.name in wanted)
        raise ConfigError(
            f"stage {user} needs {first}, which has not been run in {workdir.path} with this "
            "config, or is damaged; add it to --config.stages"
        )
    for name in due:
        if (folder := workdir.folder(name)).exists() and not folder.is_dir():
            raise FileExistsError(f"{folder}: is no folder; move it away")
    return due


def _is_whole(place: Workdir, stage: Stage, found: Mapping[str, str]) -> bool:
    """Whether a finished stage can be taken from an earlier run; the main host looks."""
    return hosts.is_main() and place.fingerprint(stage.name, hash_all=True) == found[stage.name]


def _run_shared(run: Run, stage: Stage, found: Mapping[str, str], left: TimeLeft) -> None:
    """Takes a stage from the store, or runs it and leaves it there.

    Runs that want the same stage at the same time wait for the first one.
    """
    store = Workdir(resolved(run.config.stage_store))
    stored = store.folder(f"{stage.name}-{found[stage.name]}")
    with locked(stored) if hosts.is_main() else nullcontext():
        if hosts.is_main():
            repair(stored)
        there = hosts.is_main() and store.fingerprint(stored.name, True) == found[stage.name]
        if hosts.from_main(
            f"{stage.name} is stored", bool, there, hosts.LONG
        ):  # others may be at it
            link_folder(stored, run.workdir.folder(stage.name))
            log.info("%s: taken from %s", stage.name, stored)
        else:
            _run_one(run, stage, found, left)
            link_folder(run.workdir.folder(stage.name), stored)


def _earlier_versions(run: Run, stage: Stage) -> list[Path]:
    """Folders that may hold other versions of a stage: of runs, and in the store."""
    places = [run.workdir.path, *map(resolved, filter(None, [run.config.reuse_from]))]
    store = run.config.stage_store
    stored = sorted(resolved(store).glob(f"{stage.name}-*")) if store else []
    return [*(place / stage.name for place in places), *stored]


def _run_one(run: Run, stage: Stage, found: Mapping[str, str], left: TimeLeft) -> None:
    hosts.note(f"stage {stage.name}")
    log.info("%s: running", stage.name)
    partial = run.workdir.open_partial(stage.name)
    computed = Computed(origin(run, stage, found), _earlier_versions(run, stage))
    progress = run.workdir.open_progress(stage.name, found[stage.name])
    journal = Journal(progress / "batches")
    if journal.kept:
        log.info("%s: goes on: %d batches done", stage.name, journal.kept)
    started = time.monotonic()
    try:
        with keeping(journal), compilation() as compiling:
            outcome = stage.execute(run.inputs(stage, computed, progress), partial)
    except TooLongError as error:  # rows that other fields limit are cut to them before
        raise ConfigError(f"config.generation.context_tokens: {error}") from error
    except NotFiniteError as error:
        raise FloatingPointError(f"{error}{_remedy(run, error.origin.stage)}") from error
    seconds = time.monotonic() - started
    computed.write(partial)
    for kind, count in computed.counts.items():
        if count["taken"]:
            log.info("%s: %s: %d taken, %d computed", stage.name, kind, *count.values())
    hosts.write_text(partial / "rows.json", json.dumps(_rows_read(run, stage), indent=1) + "\n")
    manifest = {
        "stage": stage.name,
        "fingerprint": found[stage.name],
        "seconds": round(seconds, 2),
        "compile_seconds": round(sum(compiling), 2),
        "tokens": outcome.tokens,
        "tokens_per_second": round(outcome.tokens / seconds, 1),
        "rows": computed.counts,
        "metrics": outcome.metrics,
        "constitution": run.data.constitution.name,
        "constitution_sha256": run.data.constitution.content_hash(),
        "groups": {g: c.content_hash() for g, c in run.data.groups.items() if g},
        "model": without_secrets(run.models.base_name),
        "seed": run.config.seed,
        "devices": _devices(),
        **provenance(run, stage, found),
    }
    c = run.config.constitution
    copies = {"constitution": c.path} | {f"constitution-{g}": path for g, path in c.groups.items()}
    run.workdir.finish(partial, manifest, copies)
    run.workdir.drop_progress(stage.name)
    left.done(stage.name, seconds)
    rate = f", {outcome.tokens / seconds:.0f} tokens/s" if outcome.tokens else ""
    log.info("%s: done in %.0f s%s%s", stage.name, seconds, rate, left)


def _remedy(run: Run, trained_by: str) -> str:
    """Which fields decide whether a model gives what is finite; empty where none does."""
    if not trained_by:
        low = run.models.dtype != jnp.float32
        return "; set config.model.compute_dtype to 'float32', or name another model" if low else ""
    block = "pm_train" if trained_by == "second_model" else trained_by
    rate = getattr(getattr(run.config, block, None), "learning_rate", None)
    return f" with a lower config.{block}.learning_rate (now {rate:g})" if rate else ""


def _rows_read(run: Run, stage: Stage) -> dict[str, Any]:
    """Which rows of which files a stage declares, and what they are for."""
    inputs = run.inputs(stage)
    return {
        name: {
            "file": without_secrets(run.data.path(chosen.file)),
            "purpose": chosen.purpose,
            "ids": [row.id for row in inputs.rows(name)],
            "left_out": sorted(run.data.left_out[chosen.file]),
        }
        for name, chosen in stage.data.items()
    }
