"""Runs the stages of a workdir that are not done yet.

A stage whose folder carries the current fingerprint, a hash of all that it declares and of the
fingerprints of the stages it needs, is not run again.
"""

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import cai_jax
from cai_jax.config import ConfigError, results_of
from cai_jax.constitution.schema import Constitution
from cai_jax.generation.batching import TooLongError
from cai_jax.models.io.sources import stamp
from cai_jax.parallel import hosts
from cai_jax.stages.reuse import Computed
from cai_jax.stages.stage import Inputs, Run, Stage
from cai_jax.stages.workdir import MANIFEST, Workdir, link_folder, locked

log = logging.getLogger("cai_jax")
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "seqio")


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
    shared = [cai_jax.__version__, run.config.seed, model.system_prompt, str(run.models.dtype)]
    return [*shared, model.source, stamp(model.source)]


def origin(run: Run, stage: Stage, found: Mapping[str, str]) -> str:
    """Hash of what all values of a stage come from: seed, models, and the stages below it.

    Args:
      run: that they are of.
      stage: that computes them.
      found: fingerprints.
    """
    blocks = [getattr(run.config, name) for name in stage.blocks]
    sources = [(block.source, stamp(block.source)) for block in blocks if hasattr(block, "source")]
    below = [found[name] for name in stage.needs if name in found]
    return _hash([stage.name, _shared(run), sources, below])


def declared(inputs: Inputs) -> list[Any]:
    """All that a stage declares: config blocks, models that they name, rows and principles."""
    stage = inputs.stage
    blocks = {name: getattr(inputs.config, name) for name in stage.blocks}
    return [
        {name: results_of(block) for name, block in blocks.items()},
        [stamp(block.source) for block in blocks.values() if hasattr(block, "source")],
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


def run_stages(run: Run, stages: Sequence[Stage]) -> None:
    """Runs the wanted stages in order, skipping those that are up to date.

    Raises:
      ConfigError: a wanted stage needs one that is neither wanted nor up to date.
    """
    found, workdir = fingerprints(run, stages), run.workdir
    hosts.check_same(
        "what the stages depend on",
        found,
        "Data files, the constitution, a local model and the compute dtype must be the same.",
    )
    wanted = [stage for stage in stages if stage.name in run.config.stages]
    for stage in wanted:
        for name in stage.needs:
            wanted_too = name in run.config.stages or name not in found
            if not wanted_too and workdir.fingerprint(name) != found[name]:
                raise ConfigError(
                    f"stage {stage.name} needs {name}, which has not been run in {workdir.path} "
                    f"with this config; add it to --config.stages"
                )
    earlier = Workdir(Path(run.config.reuse_from)) if run.config.reuse_from else None
    for stage in wanted:
        done = workdir.fingerprint(stage.name) == found[stage.name]
        there = earlier is not None and earlier.fingerprint(stage.name) == found[stage.name]
        if hosts.from_main(f"{stage.name} is done", done):
            log.info("%s: up to date", stage.name)
        elif earlier and hosts.from_main(f"{stage.name} is in the earlier run", there):
            link_folder(earlier.folder(stage.name), workdir.folder(stage.name))
            log.info("%s: taken from %s", stage.name, earlier.path)
        elif run.config.stage_store:
            _run_shared(run, stage, found)
        else:
            _run_one(run, stage, found)
        workdir.wait_until_visible(stage.name, found[stage.name])


def _run_shared(run: Run, stage: Stage, found: Mapping[str, str]) -> None:
    """Takes a stage from the store, or runs it and leaves it there.

    Runs that want the same stage at the same time wait for the first one.
    """
    stored = Path(run.config.stage_store) / f"{stage.name}-{found[stage.name]}"
    with locked(stored) if hosts.is_main() else nullcontext():
        there = (stored / MANIFEST).exists()
        if hosts.from_main(f"{stage.name} is stored", there, hosts.LONG):  # others may be at it
            link_folder(stored, run.workdir.folder(stage.name))
            log.info("%s: taken from %s", stage.name, stored)
        else:
            _run_one(run, stage, found)
            link_folder(run.workdir.folder(stage.name), stored)


def _earlier_versions(run: Run, stage: Stage) -> list[Path]:
    """Folders that may hold other versions of a stage: of runs, and in the store."""
    places = [run.workdir.path, *map(Path, filter(None, [run.config.reuse_from]))]
    store = run.config.stage_store
    stored = sorted(Path(store).glob(f"{stage.name}-*")) if store else []
    return [*(place / stage.name for place in places), *stored]


def _run_one(run: Run, stage: Stage, found: Mapping[str, str]) -> None:
    hosts.note(f"stage {stage.name}")
    log.info("%s: running", stage.name)
    partial = run.workdir.open_partial(stage.name)
    computed = Computed(origin(run, stage, found), _earlier_versions(run, stage))
    started = time.monotonic()
    try:
        outcome = stage.execute(run.inputs(stage, computed), partial)
    except TooLongError as error:  # rows that other fields limit are cut to them before
        raise ConfigError(f"config.generation.context_tokens: {error}") from error
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
        "tokens": outcome.tokens,
        "tokens_per_second": round(outcome.tokens / seconds, 1),
        "rows": computed.counts,
        "metrics": outcome.metrics,
        "constitution": run.data.constitution.name,
        "constitution_sha256": run.data.constitution.content_hash(),
        "groups": {g: c.content_hash() for g, c in run.data.groups.items() if g},
        "model": run.models.base_name,
        "seed": run.config.seed,
        "versions": versions(),
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    c = run.config.constitution
    copies = {"constitution": c.path} | {f"constitution-{g}": path for g, path in c.groups.items()}
    run.workdir.finish(partial, manifest, copies)
    log.info("%s: done in %.0f s", stage.name, seconds)


def _rows_read(run: Run, stage: Stage) -> dict[str, Any]:
    """Which rows of which files a stage declares, and what they are for."""
    inputs = run.inputs(stage)
    return {
        name: {
            "file": run.data.path(chosen.file),
            "purpose": chosen.purpose,
            "ids": [row.id for row in inputs.rows(name)],
        }
        for name, chosen in stage.data.items()
    }


def versions() -> dict[str, str]:
    """Versions of ours and of what computes."""
    return {"cai_jax": metadata.version("cai_jax")} | {p: metadata.version(p) for p in PACKAGES}
