"""Whatever is changed in a sealed folder is noticed, and named."""

import json
import os
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_jax.storage import sealed
from cai_jax.storage.sealed import (
    MANIFEST,
    NotWholeError,
    check_folder,
    check_whole,
    problem_of,
    read_sealed,
    seal_folder,
    sealed_text,
)


@pytest.fixture
def folder(tmp_path):
    """A sealed folder of two files."""
    (tmp_path / "s" / "checkpoint").mkdir(parents=True)
    (tmp_path / "s" / "checkpoint" / "data").write_bytes(b"weights")
    (tmp_path / "s" / "history.json").write_text("[1]")
    seal_folder(tmp_path / "s", {"stage": "s", "fingerprint": "f", "metrics": {"loss": 0.1}})
    return tmp_path / "s"


@pytest.fixture(scope="module")
def sealed_file(tmp_path_factory):
    file = tmp_path_factory.mktemp("sealed") / "file.json"
    file.write_text(sealed_text({"stage": "é", "numbers": [0.1, 2], "none": None}))
    return file, file.read_bytes()


@given(st.data())
def test_a_flipped_bit_of_a_sealed_file_is_noticed_or_changes_nothing(sealed_file, data):
    file, held = sealed_file
    bit = data.draw(st.integers(0, 8 * len(held) - 1))
    changed = bytearray(held)
    changed[bit // 8] ^= 1 << bit % 8
    file.write_bytes(held)
    written = read_sealed(file)
    file.write_bytes(changed)
    with suppress(NotWholeError):
        assert read_sealed(file) == written


def test_what_is_missing_cut_or_changed_is_named(folder):
    data = folder / "checkpoint" / "data"
    assert check_folder(folder)["metrics"] == {"loss": 0.1}
    data.write_bytes(b"weightz")
    assert problem_of(folder).startswith(f"{data}: is damaged, or was replaced")
    with pytest.raises(NotWholeError, match="data: is damaged"):
        check_whole(data)
    check_whole(folder / "history.json")  # nobody asked for the weights
    data.write_bytes(b"weight")
    assert problem_of(folder) == f"{data}: has 6 bytes, but 7 were written"
    data.unlink()
    assert problem_of(folder) == f"{data}: is missing"
    (folder / MANIFEST).unlink()
    assert problem_of(folder) == f"{folder / MANIFEST}: no such file; check the path"


def test_large_files_are_hashed_when_they_are_read(folder, monkeypatch):
    monkeypatch.setattr(sealed, "SMALL_FILE", 5)
    (folder / "checkpoint" / "data").write_bytes(b"weightz")
    assert not problem_of(folder, hash_all=False)
    assert problem_of(folder)


def test_a_file_that_keeps_its_time_is_hashed_again(folder):
    data = folder / "checkpoint" / "data"
    check_whole(data)
    status = data.stat()
    data.write_bytes(b"weightz")
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(NotWholeError):
        check_whole(data)


def test_manifests_of_others_are_theirs(tmp_path):
    (tmp_path / MANIFEST).write_text(json.dumps({"name": "a web page", "files": []}))
    check_whole(tmp_path / "model.safetensors")
