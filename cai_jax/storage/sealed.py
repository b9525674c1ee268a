"""Sealed files and folders: what they hold is what was written.

A sealed file is a JSON object with the SHA-256 of its other fields. A sealed folder holds one, its
manifest, which lists the size and SHA-256 of every file of the folder.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from cai_jax.parallel.hosts import is_main
from cai_jax.reading import FileError, read_object
from cai_jax.storage.files import old_of, partial_of, write_whole

MANIFEST = "manifest.json"
SEAL = "sha256"
FILES = "files"
SMALL_FILE = 16 * 2**20  # bytes: up to here a file is hashed wherever its size is looked at
DEPTH = 8  # of a file below its manifest, at most

_verified: dict[Path, tuple] = {}  # files that were hashed, by size, inode and time of change


class NotWholeError(ValueError):
    """What is on the disk is not what was written; the message names the file."""


def sealed_text(fields: Mapping[str, Any]) -> str:
    """A JSON object that tells if it is changed."""
    plain = json.loads(json.dumps(fields))  # as it is read back
    return json.dumps({**plain, SEAL: _digest(plain)}, indent=2) + "\n"


def read_sealed(file: Path) -> dict[str, Any]:
    """The fields of a sealed file.

    Raises:
      NotWholeError: it is not as it was written, or was never sealed.
    """
    try:
        fields = read_object(file, finite=False)
    except FileError as error:
        how = "is damaged: " if file.exists() else ""
        raise NotWholeError(f"{file}: {how}{error.problem}") from error
    if (seal := fields.pop(SEAL, None)) is None:
        raise NotWholeError(
            f"{file}: says nothing by which to tell whether it is whole: an earlier version of "
            "cai_jax wrote it, or it is damaged"
        )
    if seal != _digest(fields):
        raise NotWholeError(f"{file}: is damaged, or was changed: its SHA-256 is another")
    return fields


def _digest(fields: Any) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode("utf-8")).hexdigest()


def seal_folder(folder: Path, fields: Mapping[str, Any]) -> None:
    """Writes the manifest of a folder that is written, with the fields and what files there are."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(_hash, files))
    listed = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, SEAL: digest}
        for path, digest in zip(files, hashes, strict=True)
    }
    write_whole(folder / MANIFEST, sealed_text({**fields, FILES: listed}))


def check_folder(folder: Path, inside: Path | None = None, hash_all: bool = True) -> dict[str, Any]:
    """The manifest of a folder that is as it was sealed.

    Args:
      folder: sealed.
      inside: of the folder; what lies elsewhere is not looked at. None: all of it is.
      hash_all: hash the large files as well; their sizes are always compared.

    Raises:
      NotWholeError: a file is missing, or is not what it was.
    """
    manifest = read_sealed(folder / MANIFEST)
    listed = {folder / name: said for name, said in manifest.get(FILES, {}).items()}
    wanted = {f: said for f, said in listed.items() if inside is None or f.is_relative_to(inside)}
    for file, said in wanted.items():
        there = file.stat().st_size if file.is_file() else None
        if there is None:
            raise NotWholeError(f"{file}: is missing")
        if there != said["bytes"]:
            raise NotWholeError(f"{file}: has {there} bytes, but {said['bytes']} were written")
    hashed = [f for f, said in wanted.items() if hash_all or said["bytes"] <= SMALL_FILE]
    with ThreadPoolExecutor() as pool:
        for file, found in zip(hashed, pool.map(_hash, hashed), strict=True):
            if found != wanted[file][SEAL]:
                raise NotWholeError(f"{file}: is damaged, or was replaced: its SHA-256 is another")
    return manifest


def problem_of(folder: Path, inside: Path | None = None, hash_all: bool = True) -> str:
    """Why a folder does not count as sealed; empty if it does. Arguments as of ``check_folder``."""
    try:
        check_folder(folder, inside, hash_all)
    except NotWholeError as error:
        return str(error)
    return ""


def check_whole(path: Path) -> None:
    """Checks a file or folder that is about to be read, if it lies in a sealed folder.

    Of several hosts the main one checks, and ends all if something is wrong.

    Raises:
      NotWholeError: it is not what was written.
    """
    if is_main() and (folder := sealed_above(path)):
        check_folder(folder, inside=path.absolute())


def sealed_above(path: Path) -> Path | None:
    """The sealed folder that a file or folder is, or lies in; None if there is none."""
    path = path.absolute()
    above = (path, *path.parents)[:DEPTH]
    return next((folder for folder in above if _has_manifest(folder)), None)


def stage_of(path: Path) -> str:
    """The stage of a run that wrote a file or folder; empty where none did.

    Raises:
      NotWholeError: its manifest is damaged.
    """
    folder = sealed_above(path)
    return read_sealed(folder / MANIFEST).get("stage", "") if folder else ""


def _has_manifest(folder: Path) -> bool:
    """Whether there is a manifest of ours that lists files: others name theirs so too."""
    file = folder / MANIFEST
    if not file.is_file():
        return False
    said = file.read_bytes()
    ours = b'"stage"' in said or b'"fingerprint"' in said
    return ours and (b'"files"' in said or b'"sha256"' in said)


def repair(final: Path) -> None:
    """Ends a ``put_in_place`` that was killed: the new folder counts if it is whole, else the old.

    A folder that is made, but is not whole, is left to whoever goes on with it.
    """
    old, new = old_of(final), partial_of(final)
    if not final.exists() and not problem_of(new):
        new.rename(final)
    if old.exists() and problem_of(final) and not problem_of(old):
        shutil.rmtree(final, ignore_errors=True)
        old.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def _hash(file: Path) -> str:
    """SHA-256 of a file, read once in a process for each time that it changes."""
    status = file.stat()
    known = (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
    if file not in _verified or _verified[file][0] != known:
        with file.open("rb") as content:
            _verified[file] = known, hashlib.file_digest(content, "sha256").hexdigest()
    return _verified[file][1]
