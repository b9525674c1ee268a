"""Says what made an artifact of a run, from which inputs, back to the constitution.

python -m cai_jax.inspect PATH

PATH is a run's workdir, a stage's folder, or what lies in one: a checkpoint, records, the report.
All files of the stage, and of the stages below it that are there, are hashed; if one is not what
was written, it is named, and the exit code is 1.
"""

from collections.abc import Iterator
from pathlib import Path

from cai_jax.commands.front import start
from cai_jax.config import STAGES, Config, differences, plain
from cai_jax.models.io.adapters import ADAPTER_FILE
from cai_jax.models.io.checkpoint import MODEL_FILE
from cai_jax.models.io.sources import update_info
from cai_jax.redaction import without_secrets
from cai_jax.stages.workdir import CONFIG
from cai_jax.storage.files import resolved
from cai_jax.storage.sealed import (
    FILES,
    MANIFEST,
    NotWholeError,
    problem_of,
    read_sealed,
    sealed_above,
)


def main(paths: list[Path]) -> None:
    """Prints it.

    Raises:
      ValueError: the path is no artifact, or a file of it is not what was written.
    """
    if len(paths) != 1:
        raise ValueError(f"inspect looks at one artifact, not {len(paths)}; name its PATH")
    path = resolved(paths[0])
    print(without_secrets("\n".join(about(path))))
    if damaged := [*damages(path)]:
        raise ValueError("; ".join(damaged))


def about(path: Path) -> Iterator[str]:
    """What made an artifact, as lines.

    Raises:
      ValueError: the path is none.
    """
    if not path.exists():
        raise ValueError(f"{path}: no such file or folder; check the path")
    stages = _stages_of(path)
    if not stages and not _is_update(path):
        raise ValueError(
            f"{path}: no artifact of cai_jax: neither it nor a folder above it has a manifest"
        )
    if _is_update(path):
        yield from _about_update(path)
    for folder in stages:
        yield from _about_stage(folder)


def damages(path: Path) -> Iterator[str]:
    """What is not as it was written, of an artifact and of the stages that it was made from."""
    seen = dict.fromkeys(_stages_of(path))
    for folder in [*seen]:
        seen.update(dict.fromkeys(_below(folder)))
    for folder in seen:
        if problem := problem_of(folder):
            yield problem
    if _is_workdir(path):
        try:
            read_sealed(path / CONFIG)
        except NotWholeError as error:
            yield str(error)


def _stages_of(path: Path) -> list[Path]:
    """Folders of all stages of a workdir, or the one that another path lies in."""
    if _is_workdir(path):
        return [path / stage for stage in STAGES if (path / stage).is_dir()]
    folder = sealed_above(path)
    return [folder] if folder else []


def _is_workdir(path: Path) -> bool:
    return any(sealed_above(path / stage) == path / stage for stage in STAGES)


def _is_update(path: Path) -> bool:
    return any((path / name).is_file() for name in (MODEL_FILE, ADAPTER_FILE))


def _about_update(path: Path) -> Iterator[str]:
    info = update_info(path)
    what = f"a low-rank update of rank {info.lora.rank}" if info.lora else "all parameters"
    yield f"{path}: {what} of a {info.kind} model, trained from {info.base}"


def _about_stage(folder: Path) -> Iterator[str]:
    try:
        manifest = read_sealed(folder / MANIFEST)
    except NotWholeError as error:
        yield f"{folder}: {error}"
        return
    size = sum(said["bytes"] for said in manifest[FILES].values())
    yield f"{folder}: stage {manifest['stage']}, fingerprint {manifest['fingerprint']}"
    yield f"  files: {len(manifest[FILES])}, {size:,} bytes"
    yield f"  seed: {manifest['seed']}"
    yield f"  constitution: {manifest['constitution']}, SHA-256 {manifest['constitution_sha256']}"
    for group, digest in manifest["groups"].items():
        yield f"  constitution of {group}: SHA-256 {digest}"
    for name, identity in manifest["models"].items():
        yield f"  model: {name}, {identity}"
    yield f"  code: SHA-256 {manifest['code_sha256']}"
    yield f"  packages: {', '.join(f'{n} {v}' for n, v in manifest['versions'].items())}"
    yield f"  devices: {manifest['devices']}; {manifest['seconds']:.0f} s"
    config = manifest["config"]
    for field, value, default in differences(config, plain(Config(workdir=config["workdir"]))):
        yield f"  {field}: {value!r} (default: {default!r})"
    for name, fingerprint in manifest["needs"].items():
        known = _beside(folder, name, fingerprint)
        where = f"in {known}" if known else "which is not there any more"
        yield f"  from: stage {name}, fingerprint {fingerprint}, {where}"


def _below(folder: Path) -> Iterator[Path]:
    """Folders of the stages that one was made from, as far as they are there."""
    try:
        needs = read_sealed(folder / MANIFEST)["needs"]
    except NotWholeError:
        return
    for name, fingerprint in needs.items():
        if found := _beside(folder, name, fingerprint):
            yield from (found, *_below(found))


def _beside(folder: Path, name: str, fingerprint: str) -> Path | None:
    """Where the stage is that another one was made from: in the same run or store."""
    for place in (folder.parent / name, folder.parent / f"{name}-{fingerprint}"):
        try:
            if read_sealed(place / MANIFEST)["fingerprint"] == fingerprint:
                return place
        except NotWholeError:
            continue
    return None


if __name__ == "__main__":
    start(main, files=True)
