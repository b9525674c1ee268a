"""Runs the stages of a workdir that are not done yet.

A stage writes one folder of the workdir. The folder's manifest holds the fingerprint of all that
the stage depends on; a stage whose folder carries the current fingerprint is not run again.
"""

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from cai_jax.config import ConfigError, differences, fingerprint
from cai_jax.models.io.sources import stamp
from cai_jax.parallel import hosts
from cai_jax.stages.run import Run, Stage

log = logging.getLogger("cai_jax")

MANIFEST = "manifest.json"
PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "seqio")


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
