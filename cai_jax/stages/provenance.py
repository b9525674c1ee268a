"""What made a stage's folder: code, packages, config, model, and the stages below."""

import hashlib
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import cai_jax
from cai_jax.config import plain
from cai_jax.models.io.sources import identity
from cai_jax.redaction import public
from cai_jax.stages.models import POLICIES
from cai_jax.stages.stage import Run, Stage
from cai_jax.storage.files import resolved

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "transformers", "seqio")


def provenance(run: Run, stage: Stage, found: Mapping[str, str]) -> dict[str, Any]:
    """What a manifest says besides of what made the stage.

    Args:
      run: of the stage.
      stage: that was made.
      found: fingerprints.
    """
    blocks = (getattr(run.config, name) for name in stage.blocks)
    sources = [run.models.base_name, *(getattr(block, "source", "") for block in blocks)]
    return {
        "config": plain(run.config),
        "needs": {name: found[name] for name in stage.needs if name in found},
        "models": public({name: _identity(run, name) for name in sources if name}),
        "code_sha256": code_sha256(),
        "versions": versions(),
    }


def _identity(run: Run, name: str) -> str:
    if name.startswith("pypi:"):
        return identity(name, Path())
    if name.startswith("hf:"):
        return identity(name, run.models.source(name).path)
    if name in POLICIES or resolved(name).is_relative_to(run.workdir.path):
        return "made by this run"
    return identity(name, resolved(name))


@cache
def code_sha256() -> str:
    """Of all our source files."""
    package, hashed = Path(cai_jax.__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        hashed.update(f"{path.relative_to(package).as_posix()}\0".encode())
        hashed.update(hashlib.sha256(path.read_bytes()).digest())
    return hashed.hexdigest()


def versions() -> dict[str, str]:
    """Versions of ours and of what computes."""
    return {"cai_jax": metadata.version("cai_jax")} | {p: metadata.version(p) for p in PACKAGES}
