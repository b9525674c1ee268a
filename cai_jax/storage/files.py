"""Paths, and files and folders that are there whole or not at all."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# What a disk answers that the user can change; libraries in C++ hand on its words alone.
DISK_ERRORS: tuple[int, ...] = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
DISK_ERRORS += (errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.EIO)
DISK_WORDS = re.compile("|".join(os.strerror(number) for number in (*DISK_ERRORS[:3], errno.EIO)))


def resolved(named: str | Path) -> Path:
    """A path as all of us read it: ``~`` expanded, links followed, ``..`` as the system takes it.

    Raises:
      ValueError: there can be no such path; buckets have none unless they are mounted.
    """
    if "://" in str(named):
        raise ValueError(f"{named}: not a path; mount the bucket, and name the folder it is at")
    try:
        found = Path(named).expanduser().resolve()
        if any(path.is_symlink() for path in (found, *found.parents)):  # since Python 3.13
            raise OSError("a loop of links")
    except (OSError, RuntimeError) as error:  # a loop of links, a home that is unknown
        raise ValueError(f"{named}: cannot be resolved ({error}); name another path") from error
    return found


@contextmanager
def without_globs(folder: Path) -> Iterator[Path]:
    """The folder under a name that is no pattern, for libraries that take ``[`` for one."""
    if not set("*?[]") & set(str(folder)):
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="cai_jax-") as place:
        link = Path(place) / "folder"
        link.symlink_to(folder)
        yield link


def write_whole(file: Path, text: str) -> None:
    """Writes a file, whole or not at all, even if the machine stops meanwhile."""
    partial = file.with_name(f".{file.name}.partial")
    with open(partial, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    partial.rename(file)
    sync(file.parent)


def sync(path: Path) -> None:
    """Waits until a file or the names in a folder are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # folders of mounted buckets
            raise
    finally:
        os.close(descriptor)


def partial_of(final: Path) -> Path:
    """Where a folder is made before it is put in its place."""
    return final.with_name(f".{final.name}.partial")


def put_in_place(final: Path, new: Path) -> None:
    """Puts a folder in the place of another, which is there until the new one can be.

    A kill between any two steps leaves one of the two whole; ``sealed.repair`` finds it.
    """
    if final.exists() and not final.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(final))
    for path in (*new.rglob("*"), new):
        sync(path)
    old = old_of(final)
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    new.rename(final)
    sync(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def old_of(final: Path) -> Path:
    """Where the folder is that another one is put in the place of."""
    return final.with_name(f".{final.name}.old")


@contextmanager
def explaining_disk(folder: Path) -> Iterator[None]:
    """Turns what a disk refuses into one sentence, whichever library it comes through.

    Args:
      folder: that is written to, for errors without a path.

    Raises:
      OSError: in place of what was raised.
    """
    try:
        yield
    except Exception as error:
        if problem := disk_problem(error, folder):
            raise OSError(problem) from error
        raise


def disk_problem(error: BaseException, folder: Path) -> str:
    """What a disk refused, where that is what an error tells of; else empty."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in DISK_ERRORS:
            words, where = os.strerror(seen.errno), seen.filename or folder
            return f"{where}: {words.lower()}; {_remedy(seen.errno)}"
        if found := DISK_WORDS.search(str(seen)):
            number = next(n for n in DISK_ERRORS if os.strerror(n) == found[0])
            return f"{folder}: {found[0].lower()}; {_remedy(number)}"
        seen = seen.__cause__ or seen.__context__
    return ""


def _remedy(number: int) -> str:
    if number in (errno.ENOSPC, errno.EDQUOT):
        first = "make room"
    elif number in (errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
        first = "move away what is there"
    elif number == errno.EIO:
        first = "see to the disk"
    else:
        first = "allow it, or name another folder"
    return f"{first}, and give the same command again: what is finished is kept"
